// Asking the server: one request, its events as they come, and every fault in words.
const KEY = "jaxphoton-key";

export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
};

const SILENT = "The server does not answer. Is it still running?";

// What went wrong, for people. `status` is of HTTP; 0 where there was no answer.
export class Fault extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

const BEGINNINGS = {
  400: "The server cannot use this: ",
  403: "The server refuses this: ",
  413: "This is too large for the server: ",
  429: "The server is busy: ",
  503: "Not now: ",
  504: "The server took too long: ",
};

async function request(path, options) {
  const headers = { ...options.headers };
  if (key.get()) headers.Authorization = `Bearer ${key.get()}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store", credentials: "omit", redirect: "error" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Fault(SILENT);
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  const said = await response.json().catch(() => null);
  const message = said?.error?.message ?? `status ${response.status}, and no more was said`;
  // What it says then is of headers.
  if (response.status === 401) return new Fault(key.get() ? "The server refuses this key." : "A key is needed.", 401);
  const again = [429, 503].includes(response.status) && response.headers.get("Retry-After");
  const beginning = BEGINNINGS[response.status] ?? (response.status < 500 ? BEGINNINGS[400] : "The server failed: ");
  return new Fault(beginning + message + (again ? `. Try again in ${again} s.` : ""), response.status);
}

async function json(response) {
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Fault("The server's answer is broken.");
  }
}

// How the server is, key or not: {ready, reason, status, model}.
export async function health() {
  try {
    return await (await fetch("health", { cache: "no-store", credentials: "omit" })).json();
  } catch {
    throw new Fault(SILENT);
  }
}

// The model behind the address: {id, ...}.
export async function model() {
  const listed = await json(await request("v1/models", {}));
  return (listed.data ?? listed.models)?.[0] ?? {};
}

// The events of one ask; the last has "completed". An ask that is not streamed is one event.
export async function* events(skill, body, signal) {
  const response = await request(`v1/${skill}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
  if (!body.stream) {
    yield { ...(await json(response)), completed: true };
    return;
  }
  for await (const event of lines(response.body.getReader())) {
    if (event.error) throw new Fault(`The server failed: ${event.error.message ?? event.error}`, 500);
    yield event;
    if (event.completed) return;
  }
  throw new Fault("The connection ended before the answer did.");
}

async function* lines(reader) {
  const decoder = new TextDecoder();
  let rest = "";
  while (true) {
    const { done, value } = await read(reader);
    if (done) return;
    const whole = (rest + decoder.decode(value, { stream: true })).split("\n");
    rest = whole.pop();
    for (const line of whole) if (line.startsWith("data:")) yield parsed(line.slice(5));
  }
}

async function read(reader) {
  try {
    return await reader.read();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Fault("The connection broke before the answer was complete.");
  }
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    throw new Fault("The server's answer is broken.");
  }
}
