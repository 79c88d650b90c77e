// WebP photos that are stored turned: the model turns them by their EXIF, Chromium shows them as they are stored.
const ORIENTATION = 0x0112;
// By orientation: what a canvas does with a picture of a width and a height.
const TURNS = {
  2: (w) => [-1, 0, 0, 1, w, 0],
  3: (w, h) => [-1, 0, 0, -1, w, h],
  4: (w, h) => [1, 0, 0, -1, 0, h],
  5: () => [0, 1, 1, 0, 0, 0],
  6: (w, h) => [0, 1, -1, 0, h, 0],
  7: (w, h) => [0, -1, -1, 0, h, w],
  8: (w) => [0, -1, 1, 0, 0, w],
};

// The picture to show for a file: the file itself, or what it looks like upright.
export async function upright(file) {
  if (file.type !== "image/webp") return file;
  const view = new DataView(await file.arrayBuffer());
  const place = placeOf(view);
  if (!place) return file;
  const turn = TURNS[view.getUint16(place.at, place.little)];
  if (!turn) return file;
  view.setUint16(place.at, 1, place.little); // so that a browser which turns it does not do so twice
  const bitmap = await createImageBitmap(new Blob([view], { type: file.type }));
  const canvas = document.createElement("canvas");
  const matrix = turn(bitmap.width, bitmap.height);
  [canvas.width, canvas.height] = matrix[0] ? [bitmap.width, bitmap.height] : [bitmap.height, bitmap.width];
  const context = canvas.getContext("2d");
  context.setTransform(...matrix);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return (await new Promise((resolve) => canvas.toBlob(resolve))) ?? file;
}

// Where the orientation stands in a WebP file: {at, little}; null where there is none.
function placeOf(view) {
  try {
    for (let at = 12; at + 8 <= view.byteLength; ) {
      const size = view.getUint32(at + 4, true);
      if (view.getUint32(at) === 0x45584946 /* EXIF */) return tagOf(view, at + 8);
      at += 8 + size + (size % 2);
    }
  } catch {
    // It ends too early: the browser says whether it is a picture.
  }
  return null;
}

function tagOf(view, chunk) {
  const start = view.getUint32(chunk) === 0x45786966 /* Exif */ ? chunk + 6 : chunk;
  const little = view.getUint16(start) === 0x4949;
  const table = start + view.getUint32(start + 4, little);
  for (let entry = 0; entry < view.getUint16(table, little); entry++) {
    const at = table + 2 + 12 * entry;
    if (view.getUint16(at, little) === ORIENTATION) return { at: at + 8, little };
  }
  return null;
}
