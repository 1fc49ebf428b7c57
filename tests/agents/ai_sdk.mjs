// Calls the gateway with the AI SDK as its users do; prints one JSON object with what it got.
//
//     node ai_sdk.mjs URL TOKEN MODEL openai|openai-stored|openai-chat|anthropic|google FOLDER
import { pathToFileURL } from "node:url"
import { createRequire } from "node:module"

const [url, token, model, api, modules] = process.argv.slice(2)
const require = createRequire(pathToFileURL(modules + "/").href)
const load = async (name) => import(pathToFileURL(require.resolve(name)).href)
const { generateObject, generateText, stepCountIs, streamText, tool } = await load("ai")
const { z } = await load("zod")

const providers = {
  openai: async () => {
    const { createOpenAI } = await load("@ai-sdk/openai")
    return createOpenAI({ baseURL: url + "/v1", apiKey: token })(model)
  },
  "openai-stored": async () => providers.openai(),
  "openai-chat": async () => {
    const { createOpenAI } = await load("@ai-sdk/openai")
    return createOpenAI({ baseURL: url + "/v1", apiKey: token }).chat(model)
  },
  anthropic: async () => {
    const { createAnthropic } = await load("@ai-sdk/anthropic")
    return createAnthropic({ baseURL: url + "/v1", apiKey: token })(model)
  },
  google: async () => {
    const { createGoogleGenerativeAI } = await load("@ai-sdk/google")
    return createGoogleGenerativeAI({ baseURL: url + "/v1beta", apiKey: token })(model)
  },
}

const chosen = await providers[api]()
// Without `store: false` the SDK sends references to the items of earlier responses.
const options = api === "openai-stored" ? {} : { openai: { store: false } }
const common = { model: chosen, maxRetries: 0, providerOptions: options }
const out = {}

const whole = await generateText({ ...common, instructions: "Be brief.", prompt: "Hi" })
out.whole = { text: whole.text, usage: whole.usage.outputTokens, reason: whole.finishReason }

const streamed = streamText({ ...common, prompt: "Hi" })
const pieces = []
for await (const piece of streamed.textStream) pieces.push(piece)
out.stream = { text: pieces.join(""), pieces: pieces.length, reason: await streamed.finishReason }

const asked = []
const weather = tool({
  description: "The weather in a city.",
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => {
    asked.push(city)
    return `22 degrees in ${city}`
  },
})
const loop = streamText({
  ...common,
  prompt: "Hi",
  tools: { weather },
  stopWhen: stepCountIs(4),
})
out.tools = { text: await loop.text, asked, steps: (await loop.steps).length }

const shape = z.object({ city: z.string(), people: z.number() })
out.object = (await generateObject({ ...common, schema: shape, prompt: "Hi" })).object

try {
  await generateText({ ...common, prompt: "Hi" })
} catch (error) {
  out.error = { status: error.statusCode, message: error.message }
}
console.log(JSON.stringify(out))
