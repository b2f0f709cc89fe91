// One file to the server, with the part that has been sent: fetch cannot say it, XMLHttpRequest can.

import { ApiError, askForKey, keyHeaders, refusal } from "./api.js";

/** Send a file; `progress` is called with a part of 1. Resolves to the server's jobs. */
export async function upload(file, progress) {
  const { status, text } = await send(file, progress);
  if (status === 401 && (await askForKey())) return upload(file, progress);
  if (status < 200 || status > 299) throw refusal(status, text);
  return JSON.parse(text).jobs;
}

function send(file, progress) {
  return new Promise((resolve, reject) => {
    const xhr = new XMLHttpRequest();
    xhr.open("POST", "api/documents");
    for (const [name, value] of Object.entries(keyHeaders())) xhr.setRequestHeader(name, value);
    xhr.upload.onprogress = (event) => event.lengthComputable && progress(event.loaded / event.total);
    xhr.onload = () => resolve({ status: xhr.status, text: xhr.responseText });
    xhr.onerror = () =>
      reject(
        new ApiError(
          "It could not be sent.",
          "Look whether the server still runs. Of a folder, drop the files that are in it.",
        ),
      );
    const form = new FormData();
    form.append("files", file, file.name);
    xhr.send(form);
  });
}
