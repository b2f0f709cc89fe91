// The server's REST interface: requests, their errors in words, the API key, streams of events.

import { ask } from "./dialog.js";
import { session } from "./storage.js";

const KEY = "m3rag.key";
const UNREACHABLE = "Look whether `m3rag serve` is still running, then try again.";

/** What went wrong, for people, and what to do about it. */
export class ApiError extends Error {
  constructor(message, remedy = null, status = 0) {
    super(message);
    const first = remedy?.split(/[;.]/)[0].toLowerCase();
    this.remedy = first && message.toLowerCase().includes(first) ? null : remedy; // some messages bring it along
    this.status = status;
  }
}

/** The headers that carry the key, where one was given. */
export function keyHeaders() {
  const key = session.getItem(KEY);
  return key ? { authorization: `Bearer ${key}` } : {};
}

let asking = null; // one dialog for all requests that were refused meanwhile

/** Ask for the API key after a 401; false when the user would not say. */
export function askForKey() {
  asking ??= ask({
    title: "API key",
    text: session.getItem(KEY)
      ? "The server refused the key. It is the api_key that the server was started with."
      : "This server asks for a key: the api_key it was started with.",
    ok: "Continue",
    field: { label: "Key", type: "password" },
  }).then((key) => {
    asking = null;
    if (key) session.setItem(KEY, key.trim());
    return Boolean(key);
  });
  return asking;
}

/** The error of a refused request: the server's words, or ours where it had none. */
export function refusal(status, text) {
  try {
    const { message, remedy } = JSON.parse(text).error;
    if (typeof message === "string") return new ApiError(message, remedy, status);
  } catch {
    // Not our server's words: a proxy in between, or a crash.
  }
  return new ApiError(`The server answered with an error (${status}).`, "Try again; its log says more.", status);
}

/** A request, sent again with a key where one is asked for. `body` is sent as JSON. */
export async function request(path, { method = "GET", body, signal } = {}) {
  const headers = { ...keyHeaders(), ...(body && { "content-type": "application/json" }) };
  let response;
  try {
    response = await fetch(`api/${path}`, { method, headers, body: body && JSON.stringify(body), signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server cannot be reached.", UNREACHABLE);
  }
  if (response.status === 401 && (await askForKey())) return request(path, { method, body, signal });
  if (!response.ok) throw refusal(response.status, await response.text());
  dispatchEvent(new Event("m3rag:answered")); // a page that was refused, or met no server, begins now
  return response;
}

/** The JSON of a GET; `query` becomes the part behind the question mark. */
export async function get(path, query = null, signal = undefined) {
  return (await request(query ? `${path}?${new URLSearchParams(query)}` : path, { signal })).json();
}

/** The JSON of a POST. */
export const post = async (path, body, signal) => (await request(path, { method: "POST", body, signal })).json();

/** The events of a POST that answers with a stream: [name, data] each. */
export async function* events(path, body, signal) {
  const response = await request(path, { method: "POST", body, signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  for (;;) {
    let piece;
    try {
      piece = await reader.read();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError("The connection to the server broke off.", UNREACHABLE);
    }
    if (piece.done) return;
    const blocks = (waiting + piece.value).split(/\r?\n\r?\n/);
    waiting = blocks.pop();
    for (const block of blocks) {
      const event = parse(block);
      if (event) yield event;
    }
  }
}

function parse(block) {
  const lines = block.split(/\r?\n/);
  const of = (field) =>
    lines.filter((line) => line.startsWith(`${field}:`)).map((line) => line.slice(field.length + 1).replace(/^ /, ""));
  const data = of("data").join("\n");
  return data && [of("event")[0] ?? "message", JSON.parse(data)];
}
