// Runs in Node what onnxproof/parity/browser.py asks for: node node.mjs LIBRARY MODELS ADDRESS
import process from "node:process";
import { pathToFileURL } from "node:url";
import { work } from "./jobs.mjs";

const [library, models, address] = process.argv.slice(2);
const transformers = await import(pathToFileURL(library));
const { env } = transformers;
env.allowLocalModels = true;
env.allowRemoteModels = false;
env.localModelPath = models;

const about = async () => ({ library: env.version, runtime: env.backends.onnx.versions?.node ?? "" });

await work(transformers, about, address);
