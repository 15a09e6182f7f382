"use strict";

const maxBytes = Number(document.body.dataset.maxBytes);
const status = document.getElementById("status");
const result = document.getElementById("result");
const preview = document.getElementById("preview");
const flowers = document.getElementById("flowers");
let newest = 0;

function say(text, isError = false) {
  status.textContent = text;
  status.classList.toggle("error", isError);
}

function make(tag, className, ...children) {
  const element = document.createElement(tag);
  element.className = className;
  element.append(...children);
  return element;
}

function row(prediction) {
  const share = `${(100 * prediction.probability).toFixed(1)} %`;
  const bar = make("div", "bar");
  bar.style.width = `${100 * prediction.probability}%`;
  const track = make("div", "track", bar);
  track.setAttribute("aria-hidden", "true");
  const item = make("li", "",
    make("div", "line", make("span", "", prediction.class), make("span", "", share)), track);
  if (prediction.samples) {
    const samples = make("img", "");
    samples.alt = `Pictures of ${prediction.class} that the model learned from`;
    samples.width = 576;
    samples.height = 144;
    samples.addEventListener("error", () => samples.remove());
    samples.src = prediction.samples;
    item.append(samples);
  }
  return item;
}

async function ask(file) {
  if (file.size > maxBytes) {
    throw new Error(`more than ${maxBytes / 1e6} MB; choose a smaller picture`);
  }
  let response;
  try {
    response = await fetch("/predict", { method: "POST", body: file });
  } catch {
    throw new Error("the server does not answer; is it still running?");
  }
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer.predictions;
}

async function look(file) {
  const mine = ++newest;
  result.hidden = true;
  say(`Looking at ${file.name} …`);
  try {
    const predictions = await ask(file);
    if (mine !== newest) return; // Another picture was chosen meanwhile.
    URL.revokeObjectURL(preview.src);
    preview.hidden = false;
    preview.src = URL.createObjectURL(file);
    flowers.replaceChildren(...predictions.map(row));
    result.hidden = false;
    const [first] = predictions;
    say(`${file.name}: ${first.class}, ${(100 * first.probability).toFixed(1)} %`);
  } catch (error) {
    if (mine === newest) say(`${file.name}: ${error.message}`, true);
  }
}

// The server reads formats that some browsers cannot show.
preview.addEventListener("error", () => { preview.hidden = true; });

for (const id of ["file", "camera"]) {
  const input = document.getElementById(id);
  input.addEventListener("change", () => {
    if (input.files.length) look(input.files[0]);
    input.value = ""; // So that the same file can be chosen again.
  });
}

function lookAtTransferred(transfer, how) {
  if (transfer.files.length) look(transfer.files[0]);
  else say(`What was ${how} is no file; save the picture and choose it`, true);
}

document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", () => document.body.classList.remove("dragging"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  lookAtTransferred(event.dataTransfer, "dropped");
});
document.addEventListener("paste", (event) => lookAtTransferred(event.clipboardData, "pasted"));
