// What transformers.js makes of the dtypes of a model of several graphs: node dtypes_in_node.mjs FOLDER DTYPE…
// Standard output has the dtypes that it says are there and, for each one that is asked for, the dtype that each graph
// was loaded in and the graph's answer to ones. "none" asks for no dtype.
import path from "node:path";
import { AutoModelForSeq2SeqLM, ModelRegistry, Tensor, env } from "@huggingface/transformers";

const [folder, ...asked] = process.argv.slice(2);
env.allowRemoteModels = false;
env.localModelPath = path.dirname(folder);
const name = path.basename(folder);
const told = { available: await ModelRegistry.get_available_dtypes(name), taken: {} };
for (const dtype of asked) {
  const { sessions } = await AutoModelForSeq2SeqLM.from_pretrained(name, dtype === "none" ? {} : { dtype });
  told.taken[dtype] = {};
  for (const [key, session] of Object.entries(sessions)) {
    const { y } = await session.run({ x: new Tensor("float32", new Float32Array(4).fill(1), [4]).ort_tensor });
    told.taken[dtype][key] = [session.config.dtype, y.data[0]];
  }
}
process.stdout.write(JSON.stringify(told));
