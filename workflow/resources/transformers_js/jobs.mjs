// Runs what onnxproof/parity/browser.py asks for, one job after another, by transformers.js: in a page, and in Node.
// An answer is posted to /job, which replies with the next job.

const ARRAYS = {
  float32: Float32Array, float64: Float64Array, float16: globalThis.Float16Array ?? Uint16Array, int64: BigInt64Array,
  int32: Int32Array, uint8: Uint8Array, int8: Int8Array, bool: Uint8Array,
};
// Node has had the methods of Uint8Array for base64 since version 25 only.
const fromBase64 = (text) => Uint8Array.fromBase64?.(text) ?? Uint8Array.from(Buffer.from(text, "base64"));
const toBase64 = (bytes) => bytes.toBase64?.() ?? Buffer.from(bytes).toString("base64");
const write = async (tensor) => {
  const values = await tensor.getData();
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  return { type: tensor.type, dims: tensor.dims, data: toBase64(bytes) };
};
const options = ({ device, outside }) => ({
  device, dtype: "fp32", subfolder: "", use_external_data_format: outside,
  // In a page, the number of threads is a setting of the backend.
  session_options: device === "cpu" ? { intraOpNumThreads: 1 } : {},
});

// Works until there is nothing more to do. `about` says what runs here; `address` is that of the server.
export async function work({ AutoModel, AutoModelForCausalLM, Tensor }, about, address = "") {
  const sessions = [];
  const read = ({ type, dims, data }) => new Tensor(type, new ARRAYS[type](fromBase64(data).buffer), dims);
  const jobs = {
    about,
    // Opens one graph as transformers.js opens it; a kind of model that it does not know is one graph and no more.
    async open({ folder, name, ...rest }) {
      const model = await AutoModel.from_pretrained(folder, {
        ...options(rest), model_file_name: name, config: { model_type: "custom" },
      });
      const session = Object.values(model.sessions)[0];
      const told = (values) => values.map(({ name, type, shape }) => ({ name, type, shape }));
      return { session: sessions.push(session) - 1,
        inputs: told(session.inputMetadata), outputs: told(session.outputMetadata) };
    },
    async run({ session, names, feed }) {
      const tensors = Object.entries(feed).map(([name, value]) => [name, read(value).ort_tensor]);
      const outputs = await sessions[session].run(Object.fromEntries(tensors), names);
      const answers = {};
      for (const name of names) answers[name] = await write(outputs[name]);
      return answers;
    },
    // Has transformers.js go on with prompts by itself, with the likeliest token each time; none ends the text.
    async generate({ folder, prompts, counts, ...rest }) {
      const model = await AutoModelForCausalLM.from_pretrained(folder, options(rest));
      const made = [];
      for (const [number, prompt] of prompts.entries()) {
        const dims = [1, prompt.length];
        const input_ids = new Tensor("int64", BigInt64Array.from(prompt, BigInt), dims);
        const attention_mask = new Tensor("int64", new BigInt64Array(prompt.length).fill(1n), dims);
        const tokens = await model.generate({
          input_ids, attention_mask, max_new_tokens: counts[number], do_sample: false, eos_token_id: null,
        });
        made.push([...tokens.data].slice(prompt.length).map(Number));
      }
      return made;
    },
  };

  let answer = null;
  for (;;) {
    const reply = await fetch(`${address}/job`, { method: "POST", body: JSON.stringify(answer) });
    if (!reply.ok) break;
    const { job, ...asked } = await reply.json();
    try {
      answer = { answer: await jobs[job](asked) };
    } catch (error) {
      answer = { error: String(error?.message ?? error) };
    }
  }
}
