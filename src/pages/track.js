// Follows one transaction live. All that is needed for it: an EventSource, and drawing what its
// events say. Text goes into the page as text only, never as HTML.

const STEPS = ["accepted", "allocated", "released", "picking", "packed", "manifested", "shipped"];
const STATES = [...STEPS, "backordered", "on_hold", "cancelled", "rejected", "failed", "applied",
  "in_transit", "closed", "departed", "exception", "estimate_changed"];
// No pace says how long these take: what was estimated before does not hold any more.
const WAITING = ["backordered", "on_hold", "failed"];
const KINDS = ["order", "move", "manifest", "cancellation"];
const RETRY_MS = 3000;
const FRAMES_MAX = 50;

const id = decodeURIComponent(location.pathname.split("/").pop());
const query = new URLSearchParams(location.search);
// The ticket was for this address once: it must not stay in the history or be copied along.
if (query.has("ticket")) history.replaceState(null, "", location.pathname);

const $ = (name) => document.getElementById(name);
const frames = [];
let source, cursor = "", shown = 0, estimate = null, announcing;

function make(tag, text, attributes = {}) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function when(text) {
  const shown = new Date(text).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
  return make("time", shown, { datetime: text, title: text });
}

const words = (name) => name.replaceAll("_", " ");

function connection(state, text) {
  if ($("connection").dataset.is === state) return;
  $("connection").dataset.is = state;
  $("connection").textContent = text;
}

// A replay brings many states at once: only the last is worth being read out.
function announce(text) {
  clearTimeout(announcing);
  announcing = setTimeout(() => {
    if ($("headline").textContent !== text) $("headline").textContent = text;
  }, 150);
}

function headline(order) {
  const ordered = order.lines?.reduce((sum, line) => sum + line.ordered, 0) ?? 0;
  const shipped = order.lines?.reduce((sum, line) => sum + line.shipped, 0) ?? 0;
  const units = shipped > 0 ? `, ${shipped} of ${ordered} units shipped` : "";
  const asked = order.cancel_requested ? ", a cancellation is being decided" : "";
  const help = order.attention ? ", somebody is looking into it" : "";
  return words(order.state)[0].toUpperCase() + words(order.state).slice(1) + units + asked + help;
}

function steps(order) {
  const at = STEPS.indexOf(order.state);
  const been = new Set(order.history?.map((item) => item.state));
  const beside = at < 0 ? [order.state] : [];
  $("steps").replaceChildren(...[...STEPS, ...beside].map((step, n) => {
    const item = make("li", words(step));
    if (step === order.state) item.setAttribute("aria-current", "step");
    else if (at >= 0 ? n < at : been.has(step)) {
      item.className = "done";
      item.append(make("span", " done", { class: "read-out" }));
    }
    return item;
  }));
}

function section(name, list, draw) {
  $(name).hidden = list.length === 0;
  $(`${name}-${name === "lines" ? "body" : "list"}`).replaceChildren(...list.map(draw));
}

function draw(order) {
  const kind = words(order.kind);
  document.title = `${words(order.state)} · ${order.reference ?? id}`;
  $("title").textContent = `${kind[0].toUpperCase()}${kind.slice(1)} ${order.reference ?? id}`;
  announce(headline(order));
  if (order.kind === "order") steps(order);
  // Only `estimate_changed` brings one; until the next it holds while the order goes its way.
  estimate = order.done || WAITING.includes(order.state) ? null : order.estimate ?? estimate;
  $("estimate").hidden = !estimate;
  if (estimate) {
    const before = estimate.position > 0 ? `, ${estimate.position} before it` : "";
    $("estimate").replaceChildren("Likely to leave by ", when(estimate.shipped_p90), before);
  }
  section("exceptions", order.exceptions ?? [], (fault) => {
    const where = fault.line ? ` (line ${fault.line})` : "";
    const item = make("li", `${words(fault.code)}${where}${fault.detail ? `: ${fault.detail}` : ""} `);
    item.append(when(fault.at));
    return item;
  });
  section("lines", order.lines ?? [], (line) => {
    const row = make("tr");
    row.append(make("th", line.line, { scope: "row", "data-label": "Line" }));
    for (const [label, value] of [["SKU", line.sku], ["Ordered", line.ordered], ["Reserved", line.reserved],
      ["Picked", line.picked], ["Shipped", line.shipped], ["Backordered", line.backordered],
      ["Cancelled", line.cancelled]]) {
      row.append(make("td", value ?? "–", { "data-label": label }));
    }
    return row;
  });
  const cartons = (order.fulfillments ?? []).flatMap((fulfillment) => fulfillment.cartons ?? []);
  section("cartons", cartons, (carton) => {
    const item = make("li", `${carton.carrier ?? ""} `.trimStart());
    item.append(make("strong", carton.tracking_number ?? "no tracking number yet"));
    item.append(make("span", ` SSCC ${carton.sscc}`, { class: "quiet" }));
    return item;
  });
  section("history", order.history ?? [], (fact) => {
    const item = make("li");
    item.append(when(fact.at), ` ${words(fact.state)}${fact.detail ? `: ${fact.detail}` : ""}`);
    return item;
  });
}

function received(event) {
  cursor = event.lastEventId || cursor;
  connection("live", "live");
  frames.push(`${event.type}\n${event.data}`);
  if (frames.length > FRAMES_MAX) frames.shift();
  $("frames").textContent = frames.join("\n\n");
  const { data } = JSON.parse(event.data);
  // What comes again after a gap is known already.
  if (!data || data.version < shown) return;
  shown = data.version;
  draw(data);
}

function ended(event) {
  source.close();
  cursor = event.lastEventId || cursor;
  connection("ended", "done: nothing more will change");
  $("drop").disabled = true;
}

const REFUSALS = {
  401: "this link was used or is too old: ask for a new one",
  403: "this link is for something else",
  404: "there is no such transaction",
  410: "this was done long ago and is no longer kept",
};

// EventSource gives up at an answer that is no stream and does not say which: ask, then tell or try again.
async function gaveUp(url) {
  let status = 0;
  try {
    const asked = new URL(url);
    asked.searchParams.set("limit", "1");
    status = (await fetch(asked, { headers: { accept: "application/json" } })).status;
  } catch { /* not reachable: try again */ }
  if (REFUSALS[status]) return connection("refused", REFUSALS[status]);
  connection("reconnecting", "reconnecting");
  setTimeout(connect, RETRY_MS);
}

function connect() {
  const url = new URL(`/v1/status/${encodeURIComponent(id)}/events`, location.origin);
  for (const name of ["ticket", "client"]) if (query.has(name)) url.searchParams.set(name, query.get(name));
  if (cursor) url.searchParams.set("last_event_id", cursor);
  source = new EventSource(url);
  source.onopen = () => connection("live", "live");
  source.onerror = () => {
    if (source.readyState === EventSource.CLOSED) gaveUp(url);
    else connection("reconnecting", "reconnecting");
  };
  for (const kind of KINDS) for (const state of STATES) source.addEventListener(`wavegate.${kind}.${state}`, received);
  source.addEventListener("gap", (event) => { cursor = event.lastEventId || cursor; });
  source.addEventListener("end", ended);
}

// Shows that nothing is lost by it.
$("drop").addEventListener("click", () => {
  source.close();
  connection("reconnecting", "reconnecting");
  setTimeout(connect, RETRY_MS);
});

connect();
