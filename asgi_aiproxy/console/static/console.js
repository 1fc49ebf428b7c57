// Improvements of pages that work without them: times in the reader's zone, buttons to copy, and
// the live log, which holds still and counts what is new until it is followed.

const zone = new Intl.DateTimeFormat(document.documentElement.lang, {
  dateStyle: "medium", timeStyle: "medium",
});

function localTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]:not([title])")) {
    time.title = time.textContent;
    time.textContent = zone.format(new Date(time.dateTime));
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
localTimes(document);
new MutationObserver((changes) => {
  for (const change of changes) {
    for (const node of change.addedNodes) {
      if (node instanceof Element) localTimes(node.parentElement ?? node);
    }
  }
}).observe(document.getElementById("main"), { childList: true, subtree: true });

const live = document.querySelector("[data-live]");

function followLog() {
  const follow = document.getElementById("follow");
  const newer = document.getElementById("newer");
  let count = 0;
  let loading = false;

  async function load() { // the rows as the server renders them
    loading = true;
    count = 0;
    newer.hidden = true;
    const found = await fetch(location.href);
    const page = new DOMParser().parseFromString(await found.text(), "text/html");
    const rows = page.getElementById("records");
    if (rows) document.getElementById("records").replaceWith(rows);
    loading = false;
    if (count && follow.checked) load();
  }

  new EventSource(live.dataset.live).addEventListener("exchange", () => {
    count += 1;
    if (follow.checked) {
      if (!loading) load();
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
