// The script of verify.html: runs the golden inputs of a release with transformers.js and compares the answers with
// PyTorch's, as onnxproof/parity/{answers,metrics,gate}.py do. The page holds what it must know, see
// onnxproof/release/browser_page.py. Tests import the functions in Node, where there is no document.

const DEVICES = { wasm: "WebAssembly", webgpu: "WebGPU" };
const ARRAYS = {
  "<f4": Float32Array, "<f8": Float64Array, "<i8": BigInt64Array, "<i4": Int32Array, "|u1": Uint8Array,
  "|i1": Int8Array, "|b1": Uint8Array,
};
const TENSOR_TYPES = {
  "<f4": "float32", "<f8": "float64", "<i8": "int64", "<i4": "int32", "|u1": "uint8", "|i1": "int8", "|b1": "bool",
};
const EMPTY_OF_TYPE = { float32: Float32Array, int64: BigInt64Array, bool: Uint8Array };
// So many inputs are timed, after all were run once.
const TIMED = 8;

// ---- golden.npz: a zip archive of NumPy arrays -------------------------------------------------------------------

async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Return the arrays of an .npz file, {name: {descr, dims, data}}, from its bytes. */
export async function readNpz(buffer) {
  const view = new DataView(buffer);
  let end = buffer.byteLength - 22;
  while (end >= 0 && view.getUint32(end, true) !== 0x06054b50) end -= 1;
  if (end < 0) throw new Error("golden.npz is no zip archive");
  const arrays = {};
  let at = view.getUint32(end + 16, true);
  for (let left = view.getUint16(end + 10, true); left > 0; left -= 1) {
    const method = view.getUint16(at + 10, true), size = view.getUint32(at + 20, true);
    const lengths = [28, 30, 32].map((place) => view.getUint16(at + place, true));
    const start = view.getUint32(at + 42, true);
    const name = new TextDecoder().decode(new Uint8Array(buffer, at + 46, lengths[0]));
    const data = start + 30 + view.getUint16(start + 26, true) + view.getUint16(start + 28, true);
    const stored = new Uint8Array(buffer, data, size);
    arrays[name.replace(/\.npy$/, "")] = readNpy(method === 0 ? stored : await inflate(stored));
    at += 46 + lengths[0] + lengths[1] + lengths[2];
  }
  return arrays;
}

function readNpy(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const [start, length] = bytes[6] === 1 ? [10, view.getUint16(8, true)] : [12, view.getUint32(8, true)];
  const header = new TextDecoder().decode(bytes.subarray(start, start + length));
  const descr = /'descr': '([^']+)'/.exec(header)[1];
  const dims = /'shape': \(([^)]*)\)/.exec(header)[1].split(",").filter((part) => part.trim()).map(Number);
  // Strings, which belong to final answers, are not needed here.
  if (!ARRAYS[descr] || header.includes("'fortran_order': True")) return { descr, dims, data: null };
  return { descr, dims, data: new ARRAYS[descr](bytes.slice(start + length).buffer) };
}

const count = (dims) => dims.reduce((product, size) => product * size, 1);

/** Return the items of one group of packed arrays: [{name: {descr, dims, data}}], see model_inputs.unpack. */
export function unpack(arrays, group) {
  const items = [];
  for (const [key, { descr, data }] of Object.entries(arrays)) {
    if (!key.startsWith(`${group}.`) || key.endsWith(".shapes")) continue;
    const shapes = arrays[`${key}.shapes`], axes = shapes.dims[1];
    let at = 0;
    for (let index = 0; index < shapes.dims[0]; index += 1) {
      const dims = Array.from(shapes.data.subarray(index * axes, (index + 1) * axes), Number);
      (items[index] ??= {})[key.slice(group.length + 1)] = { descr, dims, data: data.subarray(at, at + count(dims)) };
      at += count(dims);
    }
  }
  return items;
}

// ---- answers and metrics -----------------------------------------------------------------------------------------

// Rows of features: a matrix as it is, anything else as one row.
function asRows({ dims, data }) {
  const width = dims.length === 2 ? dims[1] : count(dims);
  return Array.from({ length: dims.length === 2 ? dims[0] : 1 }, (_, row) =>
    Float64Array.from(data.subarray(row * width, (row + 1) * width), Number));
}

// The mean row of token vectors, the mean of each channel of a feature map, or the vector itself.
function readEmbedding(outputs) {
  const { dims, data } = outputs.at(-1);
  if (dims.length === 1) return [Float64Array.from(data)];
  const isMap = dims.length === 3, places = isMap ? dims[1] * dims[2] : dims[0], size = isMap ? dims[0] : dims[1];
  const mean = new Float64Array(size);
  for (let place = 0; place < places; place += 1) {
    for (let index = 0; index < size; index += 1) {
      mean[index] += data[isMap ? index * places + place : place * size + index] / places;
    }
  }
  return [mean];
}

const readRows = (outputs) => asRows(outputs[0]);
const readSpan = (outputs) => outputs.map(({ data }) => Float64Array.from(data));

function cosine(left, right) {
  let product = 0, ofLeft = 0, ofRight = 0;
  for (let index = 0; index < left.length; index += 1) {
    product += left[index] * right[index];
    ofLeft += left[index] ** 2;
    ofRight += right[index] ** 2;
  }
  if (ofLeft === 0 && ofRight === 0) return 1;
  return ofLeft === 0 || ofRight === 0 ? 0 : product / Math.sqrt(ofLeft * ofRight);
}

// One logit, as rerankers give, becomes the two classes of its sigmoid.
function logProbabilities(row) {
  const logits = row.length === 1 ? [0, row[0]] : row;
  let highest = -Infinity, total = 0;
  for (const value of logits) highest = Math.max(highest, value);
  for (const value of logits) total += Math.exp(value - highest);
  return Float64Array.from(logits, (value) => value - highest - Math.log(total));
}

function argmax(values) {
  let best = 0;
  for (let index = 1; index < values.length; index += 1) if (values[index] > values[best]) best = index;
  return best;
}

// Sums and not lists: the rows of a language model have the size of its vocabulary.
function classification(expected, actual) {
  let same = 0, divergence = 0, largest = 0;
  for (const [row, logits] of expected.entries()) {
    const left = logProbabilities(logits), right = logProbabilities(actual[row]);
    same += argmax(left) === argmax(right);
    for (let index = 0; index < left.length; index += 1) {
      divergence += Math.exp(left[index]) * (left[index] - right[index]);
      // A NaN stays: Math.max returns it.
      largest = Math.max(largest, Math.abs(Math.exp(left[index]) - Math.exp(right[index])));
    }
  }
  return { agreement: same / expected.length, max_probability_diff: largest,
    mean_kl: Math.max(divergence / expected.length, 0) };
}

function orderAgreement(expected, actual) {
  let same = 0, pairs = 0;
  for (let first = 0; first < expected.length; first += 1) {
    for (let second = first + 1; second < expected.length; second += 1, pairs += 1) {
      same += Math.sign(expected[first] - expected[second]) === Math.sign(actual[first] - actual[second]);
    }
  }
  return pairs ? same / pairs : 1;
}

const LONGEST_SPAN = 30;
function bestSpan([start, end]) {
  let best = [-Infinity, 0, 0];
  for (let first = 0; first < start.length; first += 1) {
    for (let last = first; last < Math.min(start.length, first + LONGEST_SPAN); last += 1) {
      if (start[first] + end[last] > best[0]) best = [start[first] + end[last], first, last];
    }
  }
  return `${best[1]} ${best[2]}`;
}

function measureEmbeddings(expected, actual) {
  const left = expected.flat(), right = actual.flat();
  const cosines = left.map((row, index) => cosine(row, right[index]));
  const norm = (row) => Math.sqrt(row.reduce((sum, value) => sum + value * value, 0));
  const norms = left.map((row, index) => Math.abs(norm(right[index]) - norm(row)) / Math.max(norm(row), 1e-12));
  return { cosine_min: Math.min(...cosines), cosine_mean: cosines.reduce((sum, value) => sum + value, 0) / cosines.length,
    max_norm_diff: Math.max(...norms) };
}

const named = (agreement) => (expected, actual) => {
  const { agreement: share, ...others } = classification(expected.flat(), actual.flat());
  return { [agreement]: share, ...others };
};

function measureClasses(expected, actual) {
  const metrics = named("top1_agreement")(expected, actual);
  if (expected[0][0].length === 1) {
    metrics.order_agreement = orderAgreement(expected.map((rows) => rows[0][0]), actual.map((rows) => rows[0][0]));
  }
  return metrics;
}

// Each label is a decision of its own, by a sigmoid.
function measureLabels(expected, actual) {
  const single = (answers) => answers.map((rows) => rows.flatMap((row) => Array.from(row, (value) => [value])));
  return named("label_agreement")(single(expected), single(actual));
}

function measureGuesses(expected, actual) {
  const { agreement, mean_kl } = classification(expected.flat(), actual.flat());
  return { next_token_agreement: agreement, next_token_kl: mean_kl };
}

function measureSpans(expected, actual) {
  const ends = expected.map((rows, index) => classification(rows, actual[index]));
  const same = expected.map((rows, index) => bestSpan(rows) === bestSpan(actual[index]));
  return { span_agreement: same.filter(Boolean).length / same.length,
    max_probability_diff: Math.max(...ends.map((end) => end.max_probability_diff)),
    mean_kl: ends.reduce((sum, end) => sum + end.mean_kl, 0) / ends.length };
}

// How the answers of each kind of model are read from its outputs, and compared.
const KINDS = {
  embeddings: [readEmbedding, measureEmbeddings],
  classes: [readRows, measureClasses],
  labels: [readRows, measureLabels],
  tokens: [readRows, named("token_agreement")],
  guesses: [readRows, measureGuesses],
  spans: [readSpan, measureSpans],
};

// The largest difference of one output over all inputs, and the same over its largest value, or over 1.
function compareOutput(name, expected, actual) {
  let absolute = 0, scale = 1;
  for (const [index, item] of expected.entries()) {
    const left = item[name], right = actual[index][name];
    if (String(left.dims) !== String(right.dims)) {
      throw new Error(`${name} has the shape ${right.dims.join("x")}, PyTorch's has ${left.dims.join("x")}`);
    }
    for (let at = 0; at < left.data.length; at += 1) {
      absolute = Math.max(absolute, Math.abs(left.data[at] - right.data[at]));
      scale = Math.max(scale, Math.abs(left.data[at]));
    }
  }
  return { absolute, relative: absolute / scale };
}

/**
 * Return every metric of the answers of one file, null where it is not finite.
 *
 * expected, actual: one object an input, {output: {dims, data}}, PyTorch's and those that were computed here.
 */
export function measure(kind, outputs, expected, actual) {
  const differences = outputs.map((name) => compareOutput(name, expected, actual));
  const largest = Math.max(...differences.map(({ absolute }) => absolute));
  const relative = Math.max(...differences.map(({ relative }) => relative));
  const [read, compare] = KINDS[kind];
  const answers = [expected, actual].map((items) => items.map((item) => read(outputs.map((name) => item[name]))));
  const metrics = { max_abs_diff: largest, max_relative_diff: relative, ...compare(...answers) };
  // One value that is not finite spoils them all.
  const told = ([name, value]) => [name, isFinite(largest) && isFinite(value) ? value : null];
  return Object.fromEntries(Object.entries(metrics).map(told));
}

/** Return the limits that metrics miss, as sentences, and how many were held against limits. */
export function judge(metrics, limits) {
  const held = limits.filter(({ metric }) => metric in metrics);
  const missed = held.filter(({ metric, allowed, at_least }) => {
    const measured = metrics[metric];
    return measured === null || (at_least ? measured < allowed : measured > allowed);
  });
  const told = ({ metric, allowed, at_least }) => {
    const measured = metrics[metric] === null ? "not finite" : Number(metrics[metric].toPrecision(6));
    return `${metric}: measured ${measured}, allowed ${at_least ? ">=" : "<="} ${allowed}`;
  };
  return { held: held.length, missed: missed.map(told) };
}

// ---- the files of the release, and the runtime -------------------------------------------------------------------

const hex = (bytes) => Array.from(new Uint8Array(bytes), (byte) => byte.toString(16).padStart(2, "0")).join("");

class Altered extends Error {}

/** Return the bytes of a file whose sha256 is known; `read` gives those of a path or an address. */
async function readChecked(read, path, sha256) {
  const bytes = await read(path);
  const found = hex(await crypto.subtle.digest("SHA-256", bytes));
  if (found !== sha256) {
    throw new Altered(`${path} is not the file that was released: its sha256 is ${found}, expected ${sha256}`);
  }
  return bytes;
}

// Reads by the network: the files lie beside the page, or the visitor's browser asks the address of the runtime.
async function readFetched(path) {
  const response = await fetch(path, { cache: "no-store" });
  if (!response.ok) throw new Error(`${path} cannot be read: HTTP status ${response.status}`);
  return response.arrayBuffer();
}

// Reads from a folder that the visitor chose: a page that was opened from disk may fetch none of its neighbours.
const readChosen = (files) => async (path) => {
  if (/^https?:/.test(path)) return readFetched(path);
  const file = files.get(path);
  if (!file) throw new Error(`${path} is missing in the folder that was chosen`);
  return file.arrayBuffer();
};

const asScript = (bytes) => URL.createObjectURL(new Blob([bytes], { type: "text/javascript" }));

async function loadRuntime(read, { files }, base) {
  const bytes = await Promise.all(files.map(({ name, address, sha256 }) =>
    readChecked(read, base === null ? address : `${base.replace(/\/*$/, "/")}${name}`, sha256)));
  const [library, script, binary] = bytes;
  const transformers = await import(asScript(library));
  const { env } = transformers;
  Object.assign(env, { allowLocalModels: true, allowRemoteModels: false, localModelPath: "/release/",
    useBrowserCache: false, useWasmCache: false });
  const { wasm } = env.backends.onnx;
  wasm.wasmPaths = { mjs: asScript(script) };
  wasm.wasmBinary = binary;
  wasm.numThreads = 1;
  return transformers;
}

// ---- running a file ----------------------------------------------------------------------------------------------

function feedOf(Tensor, session, item, shared) {
  const feed = {};
  for (const { name, type, shape } of session.inputMetadata) {
    const known = shared[name] ?? item[name];
    if (known) {
      const dims = name in shared ? known.dims : [1, ...known.dims];
      feed[name] = new Tensor(TENSOR_TYPES[known.descr], known.data.slice(), dims).ort_tensor;
    } else if (name.startsWith("past_key_values.")) {
      // An empty cache: the axes that have names are the batch and the places of earlier tokens.
      const dims = shape.map((size, axis) => (typeof size === "number" ? size : axis === 0 ? 1 : 0));
      feed[name] = new Tensor(type, new EMPTY_OF_TYPE[type](0), dims).ort_tensor;
    } else {
      throw new Error(`the graph wants ${name}, which the golden inputs do not have`);
    }
  }
  return feed;
}

async function answersOf(session, feed, item, plan) {
  const answered = await session.run(feed, plan.outputs);
  const answers = {};
  for (const name of plan.outputs) {
    const dims = answered[name].dims.slice(1), places = item.masked_positions;
    let data = await answered[name].getData();
    if (plan.per_token.includes(name) && places) {
      const width = count(dims.slice(1)), rows = Array.from(places.data, Number);
      const kept = new data.constructor(rows.length * width);
      rows.forEach((row, index) => kept.set(data.subarray(row * width, (row + 1) * width), index * width));
      [data, dims[0]] = [kept, rows.length];
    }
    answers[name] = { dims, data };
  }
  return answers;
}

const median = (values) => [...values].sort((left, right) => left - right)[Math.floor(values.length / 2)];

async function openGraph({ AutoModel, env }, bytes, variant, device) {
  env.fetch = async (address) => {
    const path = Object.keys(bytes).find((name) => String(address).endsWith(`/${name}`));
    return path ? new Response(bytes[path]) : new Response(null, { status: 404 });
  };
  return AutoModel.from_pretrained("model", {
    device, dtype: "fp32", subfolder: "onnx", model_file_name: variant.file.replace(/^onnx\/|\.onnx$/g, ""),
    use_external_data_format: variant.files.length - 1, config: { model_type: "custom" },
  });
}

async function runVariant(transformers, read, plan, golden, variant, device, say) {
  const bytes = {};
  for (const path of variant.files) bytes[path] = await readChecked(read, path, plan.files[path].sha256);
  const model = await openGraph(transformers, bytes, variant, device);
  try {
    const [session] = Object.values(model.sessions);
    const ask = async (item) => {
      const feed = feedOf(transformers.Tensor, session, item, golden.shared);
      const start = performance.now();
      const answers = await answersOf(session, feed, item, plan);
      return [answers, performance.now() - start];
    };
    const actual = [];
    for (const item of golden.inputs) {
      actual.push((await ask(item))[0]);
      await say(`Running ${variant.file} on ${DEVICES[device]}: ${actual.length} of ${golden.inputs.length} inputs …`);
    }
    const metrics = measure(plan.kind, plan.outputs, golden.expected, actual);
    const times = [];
    const step = Math.max(1, Math.ceil(golden.inputs.length / TIMED));
    for (let index = 0; index < golden.inputs.length; index += step) times.push((await ask(golden.inputs[index]))[1]);
    return { metrics, ...judge(metrics, variant.limits), ms: median(times) };
  } finally {
    await model.dispose();
  }
}

async function readGolden(read, plan) {
  const arrays = await readNpz(await readChecked(read, plan.golden, plan.files[plan.golden].sha256));
  const expected = unpack(arrays, "output");
  const shared = Object.entries(arrays).filter(([name]) => name.startsWith("shared."));
  return { inputs: unpack(arrays, "input").slice(0, expected.length), expected,
    shared: Object.fromEntries(shared.map(([name, array]) => [name.slice(7), array])) };
}

// ---- the page ----------------------------------------------------------------------------------------------------

// Lets the browser draw: a run on WebAssembly holds the page's only thread.
const draw = () => new Promise((done) => setTimeout(done, 30));

const figure = (value) => (value === null ? "not finite" : String(Number(value.toPrecision(4))));

export function sentence(runs) {
  const parts = Object.entries(DEVICES).map(([device, name]) => {
    const tried = runs.filter((run) => run.device === device && run.state !== "not run");
    if (!tried.length) return `On ${name}, no file was run.`;
    const right = tried.filter((run) => run.state === "right").length;
    const which = right === tried.length && right > 1 ? `all ${right} files answer` : `${right} of ${tried.length} files answer${right === 1 ? "s" : ""}`;
    return `On ${name}, ${which} within the limits of the release.`;
  });
  const right = runs.filter((run) => run.state === "right").sort((left, other) => left.ms - other.ms);
  parts.push(right.length
    ? `The fastest is ${right[0].file} on ${DEVICES[right[0].device]}: ${figure(right[0].ms)} ms an input.`
    : "No file can be recommended here.");
  const altered = [...new Set(runs.filter((run) => run.altered).map((run) => run.file))];
  if (altered.length) parts.push(`Not as released: ${altered.join(", ")}.`);
  return parts.join(" ");
}

const WORDS = { right: "right", wrong: "wrong", failed: "does not run", "not run": "not run" };

function show(cell, state, text) {
  cell.dataset.state = state;
  const word = document.createElement("strong");
  word.textContent = WORDS[state] ?? state;
  cell.replaceChildren(word, ...(text ? [document.createElement("br"), text] : []));
}

function told(run) {
  if (run.state === "not run" || run.state === "failed") return run.reason;
  if (run.state === "wrong") return run.missed.length ? run.missed.join("; ") : "no limit of the release applies";
  return `${figure(run.ms)} ms; ${run.worst}`;
}

async function runEvery(plan, read, base, withAll, status) {
  const say = async (text) => { status.textContent = text; await draw(); };
  await say("Loading transformers.js …");
  const transformers = await loadRuntime(read, plan.runtime, base);
  await say("Reading the golden inputs …");
  const golden = await readGolden(read, plan);
  const adapter = await navigator.gpu?.requestAdapter();
  const runs = [];
  for (const device of Object.keys(DEVICES)) {
    for (const variant of plan.variants) {
      const run = { file: variant.file, variant: variant.name, device };
      const cell = document.getElementById(`${variant.name}-${device}`);
      const ruledOut = variant.not_run || (withAll ? "" : variant.not_announced[device]);
      await say(`Running ${variant.file} on ${DEVICES[device]} …`);
      if (device === "webgpu" && !adapter) Object.assign(run, { state: "not run", reason: "this browser has no WebGPU" });
      else if (ruledOut) Object.assign(run, { state: "not run", reason: ruledOut });
      else {
        show(cell, "running", "");
        await draw();
        try {
          const found = await runVariant(transformers, read, plan, golden, variant, device, say);
          const worst = Object.entries(found.metrics).find(([metric]) => variant.limits.some((limit) => limit.metric === metric));
          Object.assign(run, found, { state: found.held && !found.missed.length ? "right" : "wrong",
            worst: worst ? `${worst[0]} ${figure(worst[1])}` : "" });
        } catch (error) {
          const reason = String(error?.message ?? error).split("\n")[0];
          Object.assign(run, { state: "failed", altered: error instanceof Altered, reason });
        }
      }
      show(cell, run.state, told(run));
      runs.push(run);
    }
  }
  const { vendor, architecture } = adapter?.info ?? {};
  return { model: plan.model, inputs: golden.inputs.length, runs, userAgent: navigator.userAgent,
    adapter: adapter ? [vendor, architecture].filter(Boolean).join(" ") : null, library: transformers.env.version };
}

function main() {
  const plan = JSON.parse(document.getElementById("plan").textContent);
  const [start, folder, status, every] = ["start", "folder", "status", "every"].map((id) => document.getElementById(id));
  const base = new URLSearchParams(location.search).get("runtime");
  let read = readFetched;
  if (location.protocol === "file:") {
    document.getElementById("from-disk").hidden = false;
    start.disabled = true;
    folder.addEventListener("change", () => {
      const inside = (file) => file.webkitRelativePath.split("/").slice(1).join("/");
      read = readChosen(new Map(Array.from(folder.files, (file) => [inside(file), file])));
      start.disabled = folder.files.length === 0;
    });
  }
  start.addEventListener("click", async () => {
    start.disabled = true;
    const [alarm, details] = ["alarm", "details"].map((id) => document.getElementById(id));
    alarm.hidden = details.hidden = true;
    try {
      const result = await runEvery(plan, read, base, every.checked, status);
      status.textContent = sentence(result.runs);
      document.getElementById("json").textContent = JSON.stringify(result, null, 1);
      details.hidden = false;
    } catch (error) {
      status.textContent = "";
      alarm.textContent = `The check stopped: ${String(error?.message ?? error)}`;
      alarm.hidden = false;
    }
    start.disabled = false;
  });
}

if (globalThis.document) main();
