// Keeps the board live: copies each value of the stream into the element that names it, as text only.
const SVG = "http://www.w3.org/2000/svg";
const QUIET_MS = 25000; // the server speaks at least every 10 s
let aheadMs = 0; // this browser's clock minus the server's
let heardAt = Date.now();
let source = null;
let retry = 0;

/** Write the values of one part into its element. Lists inside it are kept in step by their keys. */
function fill(element, values) {
  for (const node of own(element, "[data-text]")) setText(node, values[node.dataset.text]);
  for (const node of own(element, "[data-title]")) node.title = values[node.dataset.title];
  for (const node of own(element, "[data-aria]")) node.setAttribute("aria-label", values[node.dataset.aria]);
  for (const node of own(element, "[data-count]")) setText(node, values.counts[node.dataset.count]);
  for (const node of own(element, "[data-mark]")) node.dataset[node.dataset.mark] = values[node.dataset.mark];
  for (const node of own(element, "[data-time]")) setTime(node, values[node.dataset.time]);
  for (const node of own(element, "[data-part]")) {
    const part = values.bar[node.dataset.part];
    node.setAttribute("x", part.x);
    node.setAttribute("width", part.width);
  }
  for (const node of own(element, "[data-picture]")) setPicture(node, values);
  for (const node of own(element, "[data-boxes]")) setBoxes(node, values);
  for (const node of own(element, "[data-list]")) setList(node, values[node.dataset.list]);
}

/** Elements of a part, itself included, without those of the lists inside it. */
function own(element, selector) {
  const found = [...element.querySelectorAll(selector)].filter((node) => {
    const list = node.parentElement.closest("[data-list]");
    return !list || !element.contains(list) || list === element;
  });
  return element.matches(selector) ? [element, ...found] : found;
}

function setText(node, text) {
  const wanted = text ?? "";
  if (node.textContent !== wanted) node.textContent = wanted;
}

function setTime(node, stamp) {
  if (stamp) {
    node.dateTime = stamp;
    node.title = stamp;
  } else {
    node.removeAttribute("datetime");
  }
  showAge(node);
}

function setPicture(image, values) {
  if (image.getAttribute("src") !== values.src && values.src.startsWith("/pictures/")) image.src = values.src;
  image.alt = values.alt;
  if (values.width) {
    image.width = values.width;
    image.height = values.height;
  }
}

function setBoxes(svg, values) {
  if (!values.width) return;
  svg.setAttribute("viewBox", `0 0 ${values.width} ${values.height}`);
  svg.replaceChildren(
    ...values.boxes.flatMap((box) => {
      const rect = document.createElementNS(SVG, "rect");
      for (const name of ["x", "y", "width", "height"]) rect.setAttribute(name, box[name]);
      const label = document.createElementNS(SVG, "text");
      label.setAttribute("x", box.x);
      label.setAttribute("y", box.text_y);
      label.setAttribute("font-size", values.text_px);
      label.textContent = box.label;
      return [rect, label];
    }),
  );
}

function setList(list, values) {
  const template = document.getElementById(list.dataset.from);
  const before = new Map([...list.children].map((child) => [child.dataset.key, child]));
  let place = list.firstElementChild;
  for (const value of values) {
    let child = before.get(value.key);
    before.delete(value.key);
    if (!child) {
      child = template.content.firstElementChild.cloneNode(true);
      child.dataset.key = value.key;
    }
    if (child === place) place = place.nextElementSibling;
    else list.insertBefore(child, place);
    fill(child, value);
  }
  for (const gone of before.values()) gone.remove();
  const empty = document.querySelector(`[data-empty="${list.dataset.list}"]`);
  if (empty) empty.hidden = values.length > 0;
}

/** The same words as fleet/pages/words.py. */
function ageOf(seconds) {
  if (seconds < 1) return "now";
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86400)} d ago`;
}

function showAge(node) {
  const stamp = node.dateTime;
  setText(node, stamp ? ageOf((Date.now() - aheadMs - Date.parse(stamp)) / 1000) : "never");
}

function utc(moment) {
  return `${moment.toISOString().slice(0, 19).replace("T", " ")} UTC`;
}

function heard(stamp) {
  heardAt = Date.now();
  aheadMs = heardAt - Date.parse(stamp);
  retry = 0;
  showLive();
}

function showLive() {
  const stale = Date.now() - heardAt > QUIET_MS || source === null || source.readyState !== EventSource.OPEN;
  const mark = document.getElementById("live");
  const wanted = stale ? "not live" : "live";
  setText(mark, wanted);
  mark.dataset.live = stale ? "no" : "yes";
  document.body.classList.toggle("is-stale", stale);
  const notice = document.getElementById("stale");
  notice.hidden = !stale;
  if (stale) setText(notice, `Not live since ${utc(new Date(heardAt - aheadMs))}: what is shown may be old.`);
}

function tick() {
  const now = new Date(Date.now() - aheadMs);
  const clock = document.getElementById("clock");
  setText(clock, utc(now));
  clock.dateTime = now.toISOString();
  setText(document.getElementById("local"), `here ${new Date().toLocaleTimeString()}`);
  for (const node of document.querySelectorAll("time[data-time]")) showAge(node);
  showLive();
}

function connect() {
  source = new EventSource("/live");
  source.addEventListener("board", (event) => {
    const board = JSON.parse(event.data);
    heard(board.at);
    fill(document.querySelector("main"), board);
  });
  source.addEventListener("beat", (event) => heard(JSON.parse(event.data)));
  source.addEventListener("error", () => {
    showLive();
    if (source.readyState === EventSource.CLOSED) again();
  });
}

/** The server refused the stream: signed out, too many pages, or just restarting. */
async function again() {
  retry = Math.min(retry + 1, 5);
  await new Promise((done) => setTimeout(done, (0.5 + Math.random()) * 1000 * 2 ** retry));
  try {
    const answer = await fetch("/", { redirect: "manual", cache: "no-store" });
    if (answer.type === "opaqueredirect") {
      location.assign("/sign-in");
      return;
    }
  } catch {
    // Not reachable: the next attempt will tell.
  }
  connect();
}

aheadMs = Date.now() - Date.parse(document.getElementById("clock").dateTime);
connect();
setInterval(tick, 1000);
