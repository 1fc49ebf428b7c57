// Improvements of pages that work without them: times in the reader's zone, buttons to copy, and
// the live log, which holds still and counts what is new until it is followed.

const language = document.documentElement.lang;
const clock = { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit" };
const thisYear = new Intl.DateTimeFormat(language, { ...clock, hourCycle: "h23" });
const otherYear = new Intl.DateTimeFormat(language, { ...clock, year: "numeric", hourCycle: "h23" });

function localTime(date) {
  const zone = date.getFullYear() === new Date().getFullYear() ? thisYear : otherYear;
  return zone.format(date);
}

function localTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]:not([title])")) {
    time.title = time.textContent;
    time.textContent = localTime(new Date(time.dateTime));
  }
}

async function copy(button) {
  const source = document.getElementById(button.dataset.copy);
  const text = source.textContent;
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
  } else { // on plain http there is no clipboard API
    const range = document.createRange();
    range.selectNodeContents(source);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    document.execCommand("copy");
  }
  button.textContent = "✓";
}

for (const button of document.querySelectorAll("button.copy")) {
  button.hidden = false;
  button.addEventListener("click", () => copy(button));
}
for (const all of document.querySelectorAll("input[data-all]")) {
  all.hidden = false;
  all.addEventListener("change", () => {
    for (const box of all.form.querySelectorAll(`input[name=${all.dataset.all}]`)) {
      box.checked = all.checked;
    }
  });
}
for (const choice of document.querySelectorAll("[data-file-for]")) {
  choice.hidden = false;
  choice.querySelector("input").addEventListener("change", (event) => {
    const reader = new FileReader();
    reader.onload = () => { document.getElementById(choice.dataset.fileFor).value = reader.result; };
    reader.readAsDataURL(event.target.files[0]);
  });
}
localTimes(document);
document.addEventListener("htmx:after:swap", () => localTimes(document)); // a morph restores texts
new MutationObserver((changes) => {
  for (const change of changes) {
    for (const node of change.addedNodes) {
      if (node instanceof Element) localTimes(node.parentElement ?? node);
    }
  }
}).observe(document.getElementById("main"), { childList: true, subtree: true });

for (const current of document.querySelectorAll("nav a[aria-current]")) { // the menu may scroll
  current.parentElement.parentElement.scrollLeft = current.offsetLeft - 40;
}

const live = document.querySelector("[data-live]");

function followLog() {
  const follow = document.getElementById("follow");
  const newer = document.getElementById("newer");
  const kept = Number(live.dataset.kept);
  let count = 0;
  let due = null;

  async function load() { // the new rows as the server renders them
    const limit = Math.min(count + 5, kept);
    due = null;
    count = 0;
    newer.hidden = true;
    const url = new URL(live.dataset.rows, location.href);
    url.searchParams.set("limit", limit);
    const found = await fetch(url);
    if (!found.ok) return;
    const page = new DOMParser().parseFromString(
      `<table><tbody>${await found.text()}</tbody></table>`, "text/html");
    const records = document.getElementById("records");
    const known = new Set(Array.from(records.rows, (row) => row.dataset.id));
    records.prepend(...Array.from(page.querySelectorAll("tr"))
      .filter((row) => !known.has(row.dataset.id)));
    for (const row of Array.from(records.rows)) {
      if (!row.dataset.id || row.rowIndex > kept) row.remove();
    }
  }

  new EventSource(live.dataset.live).addEventListener("exchange", () => {
    count += 1;
    if (follow.checked) {
      due ??= setTimeout(load, 500);
    } else {
      newer.textContent = newer.dataset.text.replace("{n}", count);
      newer.hidden = false;
    }
  });
  newer.addEventListener("click", load);
  follow.addEventListener("change", () => { if (follow.checked && count) load(); });
  live.hidden = false;
}

if (live && !new URLSearchParams(location.search).get("after")) followLog();
