// Answers the texts given as JSON on standard input: node transformers_js_answers.mjs FOLDER TASK DTYPE
import path from "node:path";
import { readFileSync } from "node:fs";
import { AutoModel, AutoTokenizer, env, pipeline } from "@huggingface/transformers";

const [folder, task, dtype] = process.argv.slice(2);
const texts = JSON.parse(readFileSync(0, "utf-8"));
env.allowRemoteModels = false;
env.localModelPath = path.dirname(folder);
const name = path.basename(folder);
const answers = [];
if (task === "text-classification") {
  const classify = await pipeline(task, name, { dtype });
  for (const text of texts) {
    answers.push(await classify(text, { top_k: null }));
  }
} else if (task === "sentence-similarity") {
  const tokenizer = await AutoTokenizer.from_pretrained(name);
  const model = await AutoModel.from_pretrained(name, { dtype });
  for (const text of texts) {
    const outputs = await model(await tokenizer(text, { truncation: true }));
    answers.push(outputs.sentence_embedding.tolist());
  }
} else {
  const extract = await pipeline("feature-extraction", name, { dtype });
  for (const text of texts) {
    answers.push((await extract(text)).tolist()[0]);
  }
}
process.stdout.write(JSON.stringify(answers));
