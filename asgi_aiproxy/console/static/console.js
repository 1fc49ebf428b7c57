// Small improvements of pages that work without them: times in the reader's zone, buttons to copy.

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
