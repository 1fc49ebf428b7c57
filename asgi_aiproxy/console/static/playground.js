// The playground: sends the form, shows the answer while it arrives, and the same call in code.

const form = document.getElementById("playground");
const show = (id, text) => { document.getElementById(id).textContent = text; };
const state = document.getElementById("state");
let stop = null;

function request() {
  const fields = new FormData(form);
  const messages = [{ role: "user", content: fields.get("prompt") }];
  if (fields.get("system")) messages.unshift({ role: "system", content: fields.get("system") });
  const body = { model: fields.get("model"), messages };
  if (fields.get("stream")) body.stream = true;
  return body;
}

function inCode() {
  const body = request();
  const url = form.dataset.gateway + "/v1";
  const quoted = "'" + JSON.stringify(body).replaceAll("'", "'\\''") + "'";
  show("as-curl", [
    `curl '${url.replaceAll("'", "%27")}/chat/completions' \\`,
    '  -H "Authorization: Bearer $AI_GATEWAY_TOKEN" \\',
    "  -H 'Content-Type: application/json' \\",
    `  -d ${quoted}`,
  ].join("\n"));
  const messages = JSON.stringify(body.messages);
  const asked = `model=${JSON.stringify(body.model)}, messages=${messages}`;
  show("as-python", [
    "import os", "import openai", "",
    `client = openai.OpenAI(base_url=${JSON.stringify(url)}, api_key=os.environ["AI_GATEWAY_TOKEN"])`,
    ...(body.stream
      ? [`for chunk in client.chat.completions.create(${asked}, stream=True):`,
        "    if chunk.choices:", '        print(chunk.choices[0].delta.content or "", end="")']
      : [`answer = client.chat.completions.create(${asked})`,
        "print(answer.choices[0].message.content)"]),
  ].join("\n"));
}

function usage(found) {
  if (!found) return;
  show("tokens-in", found.prompt_tokens ?? "–");
  show("tokens-out", found.completion_tokens ?? "–");
}

function event(text, answer) {
  const data = text.split("\n").filter((line) => line.startsWith("data:"))
    .map((line) => line.slice(5).trim()).join("\n");
  if (!data || data === "[DONE]") return;
  const found = JSON.parse(data);
  usage(found.usage);
  if (found.error) answer.textContent += found.error.message;
  for (const choice of found.choices ?? []) answer.textContent += choice.delta?.content ?? "";
}

async function send() {
  const answer = document.getElementById("answer");
  const raw = document.getElementById("raw");
  const began = performance.now();
  const seconds = () => ((performance.now() - began) / 1000).toFixed(2) + " s";
  for (const id of ["status", "first-byte", "duration", "tokens-in", "tokens-out"]) show(id, "–");
  answer.textContent = raw.textContent = "";
  state.textContent = state.dataset.sending;
  stop = new AbortController();
  document.getElementById("stop").hidden = false;
  const link = document.getElementById("exchange");
  link.hidden = true;
  try {
    const found = await fetch(form.action, {
      method: "POST", body: new URLSearchParams(new FormData(form)), signal: stop.signal,
    });
    show("status", found.status);
    for (const [name, value] of found.headers) raw.textContent += `${name}: ${value}\n`;
    raw.textContent += "\n";
    const id = found.headers.get("aiproxy-request-id");
    if (id) {
      link.href = form.dataset.exchange + encodeURIComponent(id);
      link.hidden = false;
    }
    const events = (found.headers.get("content-type") ?? "").startsWith("text/event-stream");
    const reader = found.body.pipeThrough(new TextDecoderStream()).getReader();
    let waiting = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      if (!waiting && !answer.textContent) show("first-byte", seconds());
      raw.textContent += value;
      waiting += value;
      if (events) {
        const parts = waiting.split("\n\n");
        waiting = parts.pop();
        for (const part of parts) event(part, answer);
      }
    }
    if (!events) {
      try {
        const whole = JSON.parse(waiting);
        usage(whole.usage);
        answer.textContent = whole.error?.message ?? whole.choices?.[0]?.message?.content ?? "";
      } catch {
        answer.textContent = waiting;
      }
    }
    state.textContent = state.dataset.done;
  } catch (error) {
    state.textContent = error.name === "AbortError" ? state.dataset.stopped : String(error);
  }
  show("duration", seconds());
  document.getElementById("stop").hidden = true;
}

form.addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  send();
});
form.addEventListener("input", inCode);
document.getElementById("stop").addEventListener("click", () => stop?.abort());
inCode();
