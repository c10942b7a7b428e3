"use strict";
// What the page does in the browser. Gradio holds the values; here they become pictures, the newest request first.
window.argan = (() => {
  const address = (kind, {model, photo, scene}, more = {}) =>
    `studio/${kind}?` + new URLSearchParams({model, ...(photo ? {photo} : scene), ...more});

  // A picture with depth: click, or move the ring with the arrow keys, to focus.
  function viewer(element, props, watch) {
    const [figure, image, ring, note] = ["figure", "img", ".ring", ".note"].map((part) => element.querySelector(part));
    let pending = null, requested = null, busy = false, settling = 0, source = null;

    async function pump() {
      if (busy) return;
      busy = true;
      while (pending) {
        const {url, alt} = pending;
        pending = null;
        try {
          const started = performance.now();
          const response = await fetch(url);
          if (!response.ok) throw new Error((await response.json().catch(() => ({}))).error || "the picture did not come");
          const old = image.src;
          image.src = URL.createObjectURL(await response.blob());
          await image.decode();
          if (old.startsWith("blob:")) URL.revokeObjectURL(old);
          image.alt = alt;
          figure.dataset.milliseconds = Math.round(performance.now() - started);
          figure.dataset.shown = url;
          showNote(props.value?.note);
        } catch (error) {
          showNote(error instanceof TypeError ? "the studio does not answer; is it still running?" : error.message, true);
        }
      }
      busy = false;
    }

    function showNote(text, wrong = false) {
      note.textContent = text ? text[0].toUpperCase() + text.slice(1) : "";
      note.classList.toggle("wrong", wrong);
    }

    function request(draft) {
      const value = props.value;
      const {aperture, x, y, shape, view} = value;
      const url = view === "Picture"
        ? address("preview", value, {aperture, x, y, shape, ...(draft && {draft})})
        : address(view.toLowerCase(), value);
      if (url === requested) return;
      requested = url;
      const description = {Picture: `through aperture ${aperture}`, Depth: "depth, red is near and blue is far",
        Confidence: "confidence, grey where the depth is not sure"}[view];
      pending = {url, alt: `${value.name}, ${description}`};
      pump();
    }

    function draw() {
      const value = props.value;
      figure.classList.toggle("empty", !value);
      if (!value) return;
      ring.hidden = value.view !== "Picture";
      ring.style.left = `${100 * value.x}%`;
      ring.style.top = `${100 * value.y}%`;
      const place = [value.x, value.y].map((part) => Math.round(100 * part));
      ring.setAttribute("aria-label", `Focus at ${place[0]} % across and ${place[1]} % down; arrow keys move it`);
      const same = source === JSON.stringify([value.model, value.photo, value.scene, value.view]);
      source = JSON.stringify([value.model, value.photo, value.scene, value.view]);
      clearTimeout(settling);
      request(same);
      if (same) settling = setTimeout(() => request(false), 250);
    }

    function focus(x, y) {
      if (!props.value) return;
      const inside = (part) => Math.min(0.9999, Math.max(0, Math.round(1e4 * part) / 1e4));
      props.value = {...props.value, x: inside(x), y: inside(y)};
      draw();
    }

    image.addEventListener("click", (event) => {
      const box = image.getBoundingClientRect();
      focus((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
    });
    ring.addEventListener("keydown", (event) => {
      const direction = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
      if (!direction) return;
      event.preventDefault();
      focus(props.value.x + 0.02 * direction[0], props.value.y + 0.02 * direction[1]);
    });
    watch("value", draw);
    draw();
  }

  // Scenes to choose from.
  function tiles(element, props, watch, open) {
    const grid = element.querySelector(".tiles");
    let drawn = null;
    const mark = () => [...grid.children].forEach((tile, i) =>
      i === props.value.open ? tile.setAttribute("aria-current", "true") : tile.removeAttribute("aria-current"));
    function draw() {
      const {model, scenes, names} = props.value;
      const key = JSON.stringify([model, scenes]);
      if (key !== drawn)
        grid.replaceChildren(...scenes.map((scene, i) => {
          const tile = Object.assign(document.createElement("button"), {type: "button", className: "tile"});
          const image = Object.assign(new Image(), {alt: names[i], src: address("tile", {model, scene})});
          image.addEventListener("load", () => tile.classList.add("there"));
          tile.append(image);
          tile.addEventListener("click", () => {
            props.value = {...props.value, open: i};
            mark();
            open();
          });
          return tile;
        }));
      drawn = key;
      mark();
    }
    watch("value", draw);
    draw();
  }

  // What the viewer shows when a tile was opened.
  const opened = ({model, scenes, names, open}, aperture, shape, view) => {
    if (innerWidth < 768) document.getElementById("scene")?.scrollIntoView({behavior: "smooth"});
    return {model, scene: scenes[open], name: names[open], aperture, shape, view, x: 0.5, y: 0.5};
  };
  const changed = (value, aperture, shape, view) => value && {...value, aperture, shape, view};

  // A light field: the eye moves with the pointer or the arrow keys, and in a circle when left alone.
  const VIEWS = 5;
  function field(element, props, watch) {
    const window_ = element.querySelector(".field");
    let x = 0, y = 0, held = matchMedia("(prefers-reduced-motion: reduce)").matches, over = false, shown = null;
    let turning = false, seen = false;
    function look() {
      const percent = (part) => 100 * Math.round((Math.min(1, Math.max(-1, part)) + 1) / 2 * (VIEWS - 1)) / (VIEWS - 1);
      window_.style.backgroundPosition = `${percent(x)}% ${percent(y)}%`;
    }
    function turn(now) {
      turning = seen && !held && !over;
      if (!turning) return;
      [x, y] = [Math.sin(now / 700), Math.cos(now / 700)];
      look();
      requestAnimationFrame(turn);
    }
    // Only while it is to be seen: frames that nobody sees slow down the pictures that somebody waits for.
    function move() {
      if (!turning) requestAnimationFrame(turn);
      turning = true;
    }
    new IntersectionObserver((entries) => {
      seen = entries.at(-1).isIntersecting;
      move();
    }).observe(window_);
    async function draw() {
      const value = props.value;
      window_.classList.toggle("empty", !value);
      if (!value) return;
      const mesh = document.getElementById("orbit");
      mesh?.setAttribute("role", "group");
      mesh?.setAttribute("aria-label", `${value.name} as a mesh; arrow keys turn it`);
      const url = address("views", value);
      if (url === shown) return;
      shown = url;
      const sheet = Object.assign(new Image(), {src: url});
      try { await sheet.decode(); } catch { return; }
      if (shown !== url) return;
      window_.style.backgroundImage = `url("${url}")`;
      window_.style.aspectRatio = `${sheet.naturalWidth} / ${sheet.naturalHeight}`;
      window_.style.maxWidth = `${480 * sheet.naturalWidth / sheet.naturalHeight}px`;
      window_.setAttribute("aria-label", `${value.name}, seen from a moving eye; arrow keys move it, space holds it still`);
      window_.dataset.shown = url;
      look();
    }
    window_.addEventListener("pointermove", (event) => {
      const box = window_.getBoundingClientRect();
      over = true;
      [x, y] = [2 * (event.clientX - box.left) / box.width - 1, 2 * (event.clientY - box.top) / box.height - 1];
      look();
    });
    window_.addEventListener("pointerleave", () => {
      over = false;
      move();
    });
    window_.addEventListener("keydown", (event) => {
      const direction = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
      if (event.key !== " " && !direction) return;
      event.preventDefault();
      held = direction ? true : !held;
      if (direction) [x, y] = [Math.min(1, Math.max(-1, x + direction[0] / 2)), Math.min(1, Math.max(-1, y + direction[1] / 2))];
      look();
      move();
    });
    watch("value", draw);
    draw();
  }

  const fetched = (id) => setTimeout(() => document.querySelector(`#${id} a, a#${id}, #${id}`)?.click(), 100);
  return {viewer, tiles, opened, changed, field, fetched};
})();
