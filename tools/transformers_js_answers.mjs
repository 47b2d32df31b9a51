// Answers what is given as JSON on standard input: node transformers_js_answers.mjs FOLDER COMPARED DTYPE
// Texts, or paths of images; for each the scores of all labels, an embedding, token vectors, the next token's logits, or
// the tokens that are generated.
import path from "node:path";
import { readFileSync } from "node:fs";
import { AutoModel, AutoModelForCausalLM, AutoTokenizer, env, pipeline } from "@huggingface/transformers";

const [folder, compared, dtype] = process.argv.slice(2);
const { task, inputs, newTokens } = JSON.parse(readFileSync(0, "utf-8"));
env.allowRemoteModels = false;
env.localModelPath = path.dirname(folder);
const name = path.basename(folder);
const answers = [];
if (compared === "probabilities") {
  const classify = await pipeline(task, name, { dtype });
  for (const input of inputs) {
    answers.push(await classify(input, { top_k: null }));
  }
} else if (compared === "token vectors") {
  const extract = await pipeline("feature-extraction", name, { dtype });
  for (const text of inputs) {
    answers.push((await extract(text)).tolist()[0]);
  }
} else {
  const tokenizer = await AutoTokenizer.from_pretrained(name);
  const modelClass = task === "text-generation" ? AutoModelForCausalLM : AutoModel;
  const model = await modelClass.from_pretrained(name, { dtype });
  for (const text of inputs) {
    const tokens = await tokenizer(text, { truncation: true });
    if (compared === "embeddings") {
      answers.push((await model(tokens)).sentence_embedding.tolist());
    } else if (compared === "next-token probabilities") {
      answers.push((await model(tokens)).logits.tolist()[0].at(-1));
    } else {
      const made = await model.generate({ ...tokens, max_new_tokens: newTokens, do_sample: false });
      answers.push(made.tolist()[0].slice(-newTokens).map(Number));
    }
  }
}
process.stdout.write(JSON.stringify(answers));
