// Prints the tokens that transformers.js generates after prompts with images, as JSON: a list for each prompt.
// node image_writer_answers.mjs RELEASE PROMPTS, a JSON file of [{feed: {name: {type, dims, data}}, count}].
import fs from "node:fs";
import path from "node:path";
import { AutoModelForImageTextToText, Tensor, env } from "@huggingface/transformers";

const [release, prompts] = process.argv.slice(2);
env.allowRemoteModels = false;
env.localModelPath = path.dirname(release);

const arrays = {
  int64: (data) => BigInt64Array.from(data.map(BigInt)),
  bool: (data) => Uint8Array.from(data),
  float32: (data) => Float32Array.from(data),
};
const model = await AutoModelForImageTextToText.from_pretrained(path.basename(release), { dtype: "fp32" });
const written = [];
for (const { feed, count } of JSON.parse(fs.readFileSync(prompts, "utf-8"))) {
  const inputs = Object.fromEntries(
    Object.entries(feed).map(([name, { type, dims, data }]) => [name, new Tensor(type, arrays[type](data), dims)]),
  );
  // No token ends the text.
  const limits = { max_new_tokens: count, min_new_tokens: count, eos_token_id: -1, do_sample: false };
  const tokens = await model.generate({ ...inputs, ...limits });
  written.push(tokens.tolist()[0].map(Number).slice(-count));
}
console.log(JSON.stringify(written));
