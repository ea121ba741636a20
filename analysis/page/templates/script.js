"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const root = document.documentElement;

  // Light and dark.
  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });

  // Panels: buttons and lists of a group show the panel that has their values.
  for (const group of all(".choices[data-group]")) {
    const panels = all(`[data-panel="${group.dataset.group}"]`);
    if (!panels.length) continue;
    const wanted = { ...panels[0].dataset };
    const keys = all("[data-key]", group).map((input) => input.dataset.key);
    const show = (changed) => {
      const fits = (panel, names) => names.every((key) => panel.dataset[key] === wanted[key]);
      const panel = panels.find((each) => fits(each, keys)) || panels.find((each) => fits(each, [changed]));
      if (!panel) return;
      Object.assign(wanted, panel.dataset);
      for (const each of panels) each.hidden = each !== panel;
      for (const button of all("button[data-key]", group))
        button.setAttribute("aria-pressed", String(wanted[button.dataset.key] === button.dataset.value));
      for (const list of all("select[data-key]", group)) list.value = wanted[list.dataset.key];
    };
    group.addEventListener("click", (event) => {
      const button = event.target.closest("button[data-key]");
      if (button) { wanted[button.dataset.key] = button.dataset.value; show(button.dataset.key); }
    });
    group.addEventListener("change", (event) => {
      const list = event.target.closest("select[data-key]");
      if (list) { wanted[list.dataset.key] = list.value; show(list.dataset.key); }
    });
  }

  // Predictions by verdict.
  const filter = (verdict) => {
    const rows = all("#verdicts tr[data-verdict]");
    for (const row of rows) row.hidden = Boolean(verdict) && row.dataset.verdict !== verdict;
    for (const button of all(".filter button")) button.setAttribute("aria-pressed", String(button.dataset.filter === verdict));
    const count = document.getElementById("verdict-count");
    if (count) count.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} verdicts shown`;
  };
  for (const element of all("[data-filter]")) element.addEventListener("click", () => filter(element.dataset.filter));

  // What a mark means, under the pointer and at the keyboard's focus.
  const tip = document.getElementById("tip");
  const say = (event) => {
    const element = event.target.closest?.("[data-tip]");
    if (!element) { tip.hidden = true; return; }
    tip.textContent = element.dataset.tip;
    tip.hidden = false;
    const box = element.getBoundingClientRect(), size = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(8, Math.min(innerWidth - size.width - 8, box.left + box.width / 2 - size.width / 2))}px`;
    tip.style.top = `${box.top - size.height - 8 > 56 ? box.top - size.height - 8 : box.bottom + 8}px`;
  };
  document.addEventListener("pointerover", say);
  document.addEventListener("focusin", say);
  addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });

  // Episodes: one slider moves all conditions of an episode.
  for (const player of all(".player")) {
    const slider = player.querySelector("input[type=range]"), button = player.querySelector(".play");
    const panes = all(".pane", player).map((pane) => ({
      pane, columns: +pane.dataset.columns, rows: +pane.dataset.rows, frames: +pane.dataset.frames,
      steps: pane.dataset.steps.split(" "), phases: pane.dataset.phases.split("|"),
    }));
    const draw = () => {
      for (const { pane, columns, rows, frames, steps, phases } of panes) {
        const i = Math.min(+slider.value, frames - 1), row = Math.floor(i / columns), column = i % columns;
        const place = `${(100 * column) / (columns - 1)}% ${rows > 1 ? (100 * row) / (rows - 1) : 0}%`;
        for (const frame of all(".frame", pane)) frame.style.backgroundPosition = place;
        pane.querySelector(".cursor").style.left = `${(100 * i) / Math.max(1, frames - 1)}%`;
        const ended = +slider.value > frames - 1 ? ", the episode has ended" : "";
        pane.querySelector(".now").textContent = `step ${steps[i]}, ${phases[i]}${ended}`;
      }
    };
    let timer = 0;
    const stop = () => { clearInterval(timer); timer = 0; button.textContent = "▶"; };
    button.addEventListener("click", () => {
      if (timer) return stop();
      if (+slider.value >= +slider.max) slider.value = 0;
      button.textContent = "❚❚";
      timer = setInterval(() => {
        if (+slider.value >= +slider.max || player.hidden) return stop();
        slider.value = +slider.value + 1;
        draw();
      }, 200);
    });
    slider.addEventListener("input", () => { stop(); draw(); });
    draw();
  }
  document.getElementById("attention")?.addEventListener("change", (event) => {
    for (const player of all(".player")) player.classList.toggle("with-attention", event.target.checked);
  });

  // The section in view.
  const links = new Map(all("nav a").map((link) => [link.hash.slice(1), link]));
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) links.get(entry.target.id)?.setAttribute("aria-current", String(entry.isIntersecting));
  }, { rootMargin: "-25% 0px -65% 0px" });
  for (const section of all("main > section")) seen.observe(section);

  // A printed page shows every seed.
  addEventListener("beforeprint", () => all("details").forEach((each) => { each.open = true; }));
})();
