// Have the browser sign the challenge of the page with a passkey, and send the result as a form.

const form = document.getElementById("passkey");
const failure = document.getElementById("failure");
const retry = document.getElementById("retry");

async function sign(options) {
  if (form.dataset.kind === "create") {
    const publicKey = PublicKeyCredential.parseCreationOptionsFromJSON(options);
    return navigator.credentials.create({ publicKey });
  }
  const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(options);
  return navigator.credentials.get({ publicKey });
}

async function run() {
  failure.hidden = true;
  retry.hidden = true;
  try {
    const credential = await sign(JSON.parse(form.dataset.options));
    form.elements.credential.value = JSON.stringify(credential);
    form.submit();
  } catch { // cancelled, timed out, or the browser has no passkeys
    failure.hidden = false;
    retry.hidden = false;
    retry.focus();
  }
}

retry.addEventListener("click", run);
run();
