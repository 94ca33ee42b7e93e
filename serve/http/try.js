"use strict";
// The page at /: asks the server that it came from, shows the answer, and loads nothing from anywhere else.
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
