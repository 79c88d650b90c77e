// A picture as it was chosen: shown by the browser, sent to the server as it is unless it is too large for a request.
import { Fault } from "./asking.js";
import { upright } from "./orientation.js";

const LARGEST = 8192; // pixels of a side that a canvas of every browser takes
const SPARE = 16384; // bytes of a body beside the picture

// Opens a file. `shown` is false where this browser cannot decode it, which says nothing about the server.
export async function open(file) {
  const view = await upright(file).catch(() => file);
  const picture = { file, view, name: file.name || "pasted picture", url: URL.createObjectURL(view), note: "" };
  const image = new Image();
  image.src = picture.url;
  try {
    await image.decode();
    picture.width = image.naturalWidth;
    picture.height = image.naturalHeight;
  } catch {
    picture.width = picture.height = 0;
  }
  picture.shown = picture.width > 0;
  return picture;
}

// The data address of a picture, in a body of at most so many bytes. Kept with it: the next ask is quicker.
export async function address(picture, limit) {
  picture.address ??= await within(picture, limit > 0 ? limit : Infinity);
  return picture.address;
}

async function within(picture, limit) {
  const room = Math.floor(((limit - SPARE) * 3) / 4);
  if (picture.file.size <= room || !picture.shown) return encoded(picture.file);
  const bitmap = await createImageBitmap(picture.view, { imageOrientation: "from-image" });
  try {
    let side = Math.min(LARGEST, Math.max(bitmap.width, bitmap.height));
    for (; side >= 64; side = Math.floor(side * 0.8)) {
      const scale = side / Math.max(bitmap.width, bitmap.height);
      const [width, height] = [bitmap.width, bitmap.height].map((each) => Math.max(1, Math.round(each * scale)));
      const smaller = await redrawn(bitmap, width, height);
      if (smaller && smaller.size <= room) {
        picture.note = `Scaled down to ${width} × ${height} to send it: the server takes ${bytes(limit)} at most.`;
        return encoded(smaller);
      }
    }
  } finally {
    bitmap.close();
  }
  return encoded(picture.file);
}

function redrawn(bitmap, width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
}

function encoded(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Fault("The file cannot be read."));
    reader.readAsDataURL(blob);
  });
}

export function bytes(count) {
  if (count < 1000) return `${count} bytes`;
  if (count < 1e6) return `${Math.round(count / 1e3)} kB`;
  return `${(count / 1e6).toLocaleString("en", { maximumFractionDigits: 1 })} MB`;
}
