// The browser's storage, or a stand-in that forgets at the end where the browser forbids storage.

function usable(name) {
  try {
    window[name].getItem("m3rag");
    return window[name];
  } catch {
    return Object.create({
      getItem(key) {
        return this[key] ?? null;
      },
      setItem(key, value) {
        this[key] = value;
      },
      removeItem(key) {
        delete this[key];
      },
    });
  }
}

export const local = usable("localStorage");
export const session = usable("sessionStorage");

/** The JSON under a key; the default where there is none, or none that can be read. */
export function stored(key, otherwise) {
  try {
    return { ...otherwise, ...JSON.parse(local.getItem(key)) };
  } catch {
    return otherwise;
  }
}

/** Keep a small JSON value; it is a convenience, so that a full storage is no error. */
export function keep(key, value) {
  try {
    local.setItem(key, JSON.stringify(value));
  } catch {
    // What the user sees is right; only the next visit will begin with the defaults.
  }
}
