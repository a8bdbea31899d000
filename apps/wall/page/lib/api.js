// SPDX-License-Identifier: MPL-2.0
// The wall's HTTP interface. Addresses are relative, so that a proxy may put the page under a path.

/** What the server refused: its message, what to do about it, and the status. */
export class Refused extends Error {
  constructor(status, message, remedy) {
    super(message);
    this.status = status;
    this.remedy = remedy;
  }
}

/** Tells `needed` that a token is wanted. */
export const access = new EventTarget();

/** The reason in an answer that is none. */
export async function refusal(response) {
  let message = `${response.status} ${response.statusText}`.trim();
  let remedy;
  try {
    const { error } = await response.json();
    message = error?.message ?? message;
    remedy = error?.remedy;
  } catch {
    // Not from the wall itself, perhaps from a proxy: the status is all there is.
  }
  if (response.status === 401) access.dispatchEvent(new CustomEvent("needed"));
  return new Refused(response.status, message, remedy);
}

async function call(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { credentials: "same-origin", ...options });
  } catch (fault) {
    if (fault.name === "AbortError") throw fault;
    throw new Refused(0, "The wall does not answer");
  }
  if (!response.ok) throw await refusal(response);
  return response.status === 204 ? null : response.json().catch(() => null);
}

function post(path, body) {
  return call(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
}

const of = (camera) => `api/cameras/${encodeURIComponent(camera)}`;

/** `?a=1&b=2` of what is set. */
export function query(fields) {
  const set = Object.entries(fields).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return set.length ? `?${new URLSearchParams(set)}` : "";
}

export const api = {
  ask: (question) => post("api/ask", question),
  answers: (camera, fields = {}) => call(`${of(camera)}/answers${query(fields)}`),
  addStanding: (camera, standing) => post(`${of(camera)}/standing`, standing),
  removeStanding: (camera, id) => call(`${of(camera)}/standing/${encodeURIComponent(id)}`, { method: "DELETE" }),
  moments: (camera, at, around, signal) => call(`${of(camera)}/moments${query({ at, around })}`, { signal }),
  history: (fields, signal) => call(`api/history${query(fields)}`, { signal }),
  login: (token) => post("api/login", { token }),
  picture: (key) => `api/pictures/${encodeURIComponent(key)}.jpg`,
  pictures: (cameras) => `api/live${query({ cameras })}`,
  mjpeg: (camera) => `${of(camera)}/live.mjpeg`,
  whep: (camera) => `${of(camera)}/whep`,
  export: (kind, fields) => `api/history.${kind}${query(fields)}`,
};
