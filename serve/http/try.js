"use strict";
// The page at /: asks the server that it came from, shows the answer, and loads nothing from anywhere else.
const post = (path, value) =>
  fetch(path, { method: "POST", body: JSON.stringify(value), headers: { "content-type": "application/json" } });
const line = (...parts) => {
  const row = document.createElement("div");
  row.append(...parts);
  return row;
};
const button = (words, press) => {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = words;
  made.addEventListener("click", press);
  return made;
};
// What a person says of the answers of one request; the row says whether it was kept.
const voting = (row, requestId) => async (judgement) => {
  try {
    const response = await post("/v1/feedback", { request_id: requestId, ...judgement });
    row.replaceChildren(response.ok ? "Thank you, kept." : (await response.json()).error);
  } catch (error) {
    row.replaceChildren(`The server did not answer: ${error.message}`);
  }
};
for (const form of document.querySelectorAll("[data-ask]")) {
  const answer = form.querySelector("output");
  const model = form.dataset.ask;
  const show = (rows) => {
    answer.replaceChildren(...rows.map(([name, value, share]) => {
      const row = document.createElement("div");
      const bar = document.createElement("meter");
      bar.max = 1;
      bar.value = share;
      if (share !== null) row.append(bar);
      row.append(` ${name} ${value}`);
      return row;
    }));
  };
  const ask = async (init, path = "/v1/classify") => {
    show([["asking", "", null]]);
    const begun = performance.now();
    try {
      const response = await fetch(path, { method: "POST", ...init });
      const value = await response.json();
      if (!response.ok) return show([[value.error ?? "refused", "", null]]);
      const [given] = value.predictions;
      const scores = given.scores ? Object.entries(given.scores) : [];
      const rows = scores.map(([name, share]) => [name, `${(100 * share).toFixed(1)}%`, share]);
      const plain = Object.entries(given).filter(([name]) => name !== "scores" && name !== "truncated");
      show([...(rows.length ? rows : plain.map(([name, each]) => [name, JSON.stringify(each), null])),
        [`${(performance.now() - begun).toFixed(0)} ms`, "", null]]);
      if (form.dataset.votes) {
        const row = line();
        const say = voting(row, response.headers.get("x-request-id"));
        const label = document.createElement("input");
        label.placeholder = "the right label";
        row.append(button("right", () => say({ vote: "up" })), " ", button("wrong", () => say({ vote: "down" })), " ",
          label, " ", button("correct it", () => label.value.trim() && say({ label: label.value.trim() })));
        answer.append(row);
      }
    } catch (error) {
      show([[`The server did not answer: ${error.message}`, "", null]]);
    }
  };
  const picture = form.querySelector("[type=file]");
  if (picture) {
    const send = (file) => {
      if (!file) return;
      const shown = form.querySelector("img");
      URL.revokeObjectURL(shown.src);
      shown.src = URL.createObjectURL(file);
      shown.hidden = false;
      const body = new FormData();
      body.append("image", file, file.name || "picture");
      ask({ body }, `/v1/classify?${new URLSearchParams({ model, top: 5 })}`);
    };
    picture.addEventListener("change", () => send(picture.files[0]));
    form.addEventListener("dragover", (event) => event.preventDefault());
    form.addEventListener("drop", (event) => {
      event.preventDefault();
      send(event.dataTransfer.files[0]);
    });
    document.addEventListener("paste", (event) => send(event.clipboardData.files[0]));
  }
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const texts = [...form.querySelectorAll("textarea")].map((field) => [field.name, field.value]);
    if (!texts.length) return;
    const top = form.dataset.ranked ? { top: 5 } : {};
    const body = JSON.stringify({ ...Object.fromEntries(texts), model, ...top });
    ask({ body, headers: { "content-type": "application/json" } });
  });
}
// Two answers of a language model side by side, in an order that chance has chosen.
for (const form of document.querySelectorAll("[data-judge]")) {
  const answer = form.querySelector("output");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const content = form.querySelector("textarea").value;
    answer.replaceChildren("asking");
    try {
      const messages = [{ role: "user", content }];
      const response = await post("/v1/chat/completions",
        { model: form.dataset.judge, messages, n: 2, temperature: 1, max_tokens: 256 });
      const value = await response.json();
      if (!response.ok) return answer.replaceChildren(value.error?.message ?? "refused");
      const order = Math.random() < 0.5 ? [0, 1] : [1, 0];
      const texts = order.map((place) => value.choices[place].message.content);
      const row = line();
      const say = voting(row, response.headers.get("x-request-id"));
      const [first, second] = order;
      row.append(button("the first is better", () => say({ choice: first, over: second })), " ",
        button("the second is better", () => say({ choice: second, over: first })));
      answer.replaceChildren(...texts.map((text) => {
        const shown = document.createElement("pre");
        shown.textContent = text;
        return shown;
      }), row);
    } catch (error) {
      answer.replaceChildren(`The server did not answer: ${error.message}`);
    }
  });
}
