// A running server through the clients of JavaScript: the AI SDK's providers (OpenAI's chat, Responses and completions,
// OpenAI-compatible, Anthropic) and openai for node.
//
//     mkdir sdk && cd sdk && npm init -y
//     npm i @ai-sdk/anthropic@3.0.140 @ai-sdk/openai@3.0.141 @ai-sdk/openai-compatible@2.0.92 ai@6.0.326 openai@6.49.0 zod@4.6.7
//     cp ../ai_sdk.mjs . && node ai_sdk.mjs http://127.0.0.1:30000
//
// Whole answers and streams, forced tools and objects with a schema, each of which the client itself validates. The
// model must be a chat model; what it says does not matter. Exits with the number of failures.
import assert from "node:assert";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, streamText, tool } from "ai";
import OpenAI from "openai";
import { z } from "zod";

const baseURL = `${process.argv[2] ?? "http://127.0.0.1:30000"}/v1`;
const question = "What is the capital of France? Answer in one word.";
const tools = { now: tool({ description: "The time.", inputSchema: z.object({ zone: z.string().max(5) }) }) };
const forced = { prompt: "What time is it in Rome?", tools, maxOutputTokens: 256, temperature: 0 };
let failures = 0;

async function stop(name, visit) {
  try {
    console.log("ok   ", name, JSON.stringify(await visit()).slice(0, 100));
  } catch (error) {
    failures += 1;
    console.log("FAIL ", name, error.message, error.responseBody ?? error.cause?.message ?? "");
  }
}

function isCall(call) {
  assert.equal(call.toolName, "now");
  assert.equal(typeof call.input.zone, "string");
  return call.input;
}

async function texts(name, model) {
  const asked = { model, prompt: question, maxOutputTokens: 16, temperature: 0 };
  let whole;
  await stop(`${name}: whole`, async () => {
    const { text, usage, warnings } = await generateText(asked);
    assert.ok(text.length > 0);
    assert.deepEqual(warnings ?? [], []);
    assert.equal(usage.totalTokens, usage.inputTokens + usage.outputTokens);
    return (whole = text);
  });
  await stop(`${name}: stream`, async () => {
    const result = streamText({ ...asked, onError: () => {} });
    let text = "";
    for await (const part of result.fullStream) {
      if (part.type === "error") throw part.error;
      if (part.type === "text-delta") text += part.text;
    }
    assert.equal(text, whole);
    assert.ok((await result.usage).outputTokens > 0);
    return text;
  });
}

async function calls(name, model) {
  await stop(`${name}: a tool that is required`, async () => {
    const { toolCalls, finishReason } = await generateText({ ...forced, model, toolChoice: "required" });
    assert.equal(finishReason, "tool-calls");
    return toolCalls.map(isCall);
  });
  await stop(`${name}: a tool by name, streamed`, async () => {
    const toolChoice = { type: "tool", toolName: "now" };
    const result = streamText({ ...forced, model, toolChoice, onError: () => {} });
    for await (const part of result.fullStream) if (part.type === "error") throw part.error;
    const found = (await result.toolCalls).map(isCall);
    assert.equal(found.length, 1);
    return found;
  });
  await stop(`${name}: an object`, async () => {
    const schema = z.object({ city: z.string().max(12) });
    const asked = { model, prompt: "The capital of France", maxOutputTokens: 128, temperature: 0, schema };
    return (await generateObject(asked)).object;
  });
}

async function openaiForNode() {
  const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0 });
  const messages = [{ role: "user", content: question }];
  await stop("openai: chat as a stream of events", async () => {
    const stream = client.chat.completions.stream({ model: "m", messages, max_tokens: 8, reasoning_effort: "low" });
    return (await stream.finalChatCompletion()).choices[0].message.content;
  });
  await stop("openai: a response whose conversation the client keeps", async () => {
    const reasoning = { effort: "low", summary: "auto" };
    const include = ["reasoning.encrypted_content"];
    const asked = { model: "m", max_output_tokens: 32, reasoning, include, store: false };
    const first = await client.responses.stream({ ...asked, input: question }).finalResponse();
    const input = [{ role: "user", content: question }, ...first.output, { role: "user", content: "And of Spain?" }];
    return (await client.responses.stream({ ...asked, input }).finalResponse()).output_text;
  });
}

const compatible = createOpenAICompatible({ name: "c", baseURL, includeUsage: true, supportsStructuredOutputs: true });
const openai = createOpenAI({ baseURL, apiKey: "none" });
const anthropic = createAnthropic({ baseURL, apiKey: "none" });
const chats = {
  "compatible": compatible("m"),
  "openai chat": openai.chat("m"),
  "openai responses": openai.responses("m"),
  "anthropic": anthropic("m"),
};
for (const [name, model] of Object.entries(chats)) {
  await texts(name, model);
  await calls(name, model);
}
await texts("compatible completions", compatible.completionModel("m"));
await texts("openai completions", openai.completion("m"));
await openaiForNode();
process.exit(failures);
