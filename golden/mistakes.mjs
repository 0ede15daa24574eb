// Plants mistakes in the JavaScript port, one after the other, and prints which vector tells each
// apart: whoever makes the same one in another language will see that vector fail.
//
//     node golden/mistakes.mjs [--only FILE] [--sample N] [--vectors DIRECTORY] [--write]
//
// mistakes/*.json hold them, a file a stage: `file` of port/, the `mistake` in words, the `old`
// text, which stands in the file once, and the `new` one; and either `caught`, the case that tells
// it apart, or `equivalent`: why none can, or `hole`: an input that would. --only takes those of
// one file of port/, or of one list by its name without .json, --sample N spread over all, and
// --vectors other vectors than those beside this file. --write puts into the lists which case
// catches what: the first of the stage of the list, or, if that does not see it, of the stages
// after it.
//
// Each mistake is planted in a copy of the port. A worker runs the cases, first the one that the
// list names, until one fails. The exit status is 1 if a mistake survives that is neither
// equivalent nor a known hole, if an equivalent one does not survive, if a case that the list names
// no longer catches, or if a text is not in its file once.

import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";

import { casesOf, STAGES } from "./port/runner.mjs";

const HERE = dirname(fileURLToPath(import.meta.url));
const LISTS = join(HERE, "mistakes");
const PORT = join(HERE, "port");
const PATIENCE = 300; // seconds without a word from the worker: a loop that does not end

// ------------------------------------------------------------------------------------ the worker

// The cases of all files, each with a title that tells it from all others.
function readCases() {
  return STAGES.flatMap((stage) => {
    const text = readFileSync(join(workerData, `${stage}.json`), "utf8");
    return casesOf(text, stage).map((one) => ({ ...one, stage, title: `${stage}: ${one.name}` }));
  });
}

// Gets {port: a directory, stage: where to begin, first: the title of a case or nothing}; answers
// with {trying: a title} before each case, and in the end with {caught: a title or null, text}.
function work() {
  const cases = readCases();
  parentPort.on("message", async ({ port, stage, first }) => {
    const likely = cases.filter((one) => one.title === first);
    const later = cases.filter((one) => one.stage >= stage && one.title !== first);
    const earlier = cases.filter((one) => one.stage < stage && one.title !== first);
    try {
      const { judge } = await import(pathToFileURL(join(port, "runner.mjs")));
      parentPort.postMessage(firstWrong(judge, [...likely, ...later, ...earlier]));
    } catch (error) {
      parentPort.postMessage({ broken: error.message });
    }
  });
}

function firstWrong(judge, cases) {
  for (const one of cases) {
    parentPort.postMessage({ trying: one.title });
    const text = wrong(judge, one);
    if (text) return { caught: one.title, text };
  }
  return { caught: null };
}

function wrong(judge, one) {
  try {
    return judge(one)[0];
  } catch (error) {
    return error.message;
  }
}

// -------------------------------------------------------------------------------- the main thread

let worker = null;
let vectors = HERE;

// What the worker says of a copy of the port. A worker that says nothing for long is ended.
function tried(message) {
  worker ??= new Worker(fileURLToPath(import.meta.url), { workerData: vectors });
  return new Promise((resolve) => {
    let trying = null;
    const endless = () => {
      worker.terminate();
      worker = null;
      const text = `no end after ${PATIENCE} seconds`;
      resolve(trying === null ? { broken: text } : { caught: trying, text });
    };
    let timer = setTimeout(endless, 1000 * PATIENCE);
    const hear = (answer) => {
      clearTimeout(timer);
      if ("trying" in answer) {
        trying = answer.trying;
        timer = setTimeout(endless, 1000 * PATIENCE);
        return;
      }
      worker.off("message", hear);
      resolve(answer);
    };
    worker.on("message", hear);
    worker.postMessage(message);
  });
}

function readLists() {
  return readdirSync(LISTS).filter((name) => name.endsWith(".json")).sort().map((name) => {
    const path = join(LISTS, name);
    const mistakes = JSON.parse(readFileSync(path, "utf8"));
    return { path, mistakes, stage: name.slice(0, -".json".length) };
  });
}

// A copy of the port with the mistake, or null if its text is not there once.
function planted(copies, { file, old, new: replacement }) {
  const source = readFileSync(join(PORT, file), "utf8");
  if (source.split(old).length !== 2) return null;
  const copy = mkdtempSync(join(copies, "port-"));
  cpSync(PORT, copy, { recursive: true });
  writeFileSync(join(copy, file), source.split(old).join(replacement));
  return copy;
}

// A verdict, a word that `main` counts, and what there is to say.
async function verdictOn(mistake, stage, copies) {
  const copy = planted(copies, mistake);
  if (copy === null) return { verdict: "stale", text: "the old text is not there once" };
  const { caught, text, broken } = await tried({ port: copy, stage, first: mistake.caught });
  rmSync(copy, { recursive: true });
  if (broken) return { verdict: "broken", text: broken };
  if (caught && mistake.equivalent) return { verdict: "not equivalent", caught, text };
  if (caught && mistake.caught && caught !== mistake.caught) {
    return { verdict: "caught elsewhere", caught, text };
  }
  if (caught) return { verdict: "caught", caught, text };
  if (mistake.equivalent) return { verdict: "equivalent", text: mistake.equivalent };
  if (mistake.hole) return { verdict: "hole", text: mistake.hole };
  return { verdict: "survives", text: "no case tells it apart" };
}

const GOOD = ["caught", "equivalent", "hole"];

async function main({ only, sample, write, vectors: given }) {
  vectors = given ?? HERE;
  const lists = readLists();
  const withStage = ({ mistakes, stage }) => mistakes.map((mistake) => ({ mistake, stage }));
  const all = lists.flatMap(withStage);
  const wanted = ({ mistake, stage }) => [undefined, mistake.file, stage].includes(only);
  const asked = all.filter(wanted);
  const chosen = spread(asked, sample === undefined ? asked.length : Number(sample));
  const copies = mkdtempSync(join(tmpdir(), "mistakes-"));
  const counts = {};
  const bad = [];
  for (const { mistake, stage } of chosen) {
    if (write) delete mistake.caught; // anew, by the first case of all
    const { verdict, caught, text } = await verdictOn(mistake, stage, copies);
    if (write && verdict === "caught") {
      mistake.caught = caught;
      delete mistake.hole;
    }
    const words = [mistake.file, mistake.mistake, verdict, caught, text].filter(Boolean).join(": ");
    console.log(words);
    counts[verdict] = (counts[verdict] ?? 0) + 1;
    if (!GOOD.includes(verdict)) bad.push(words);
  }
  worker?.terminate();
  rmSync(copies, { recursive: true });
  if (write) {
    for (const { path, mistakes } of lists) {
      writeFileSync(path, `${JSON.stringify(mistakes, null, 2)}\n`);
    }
  }
  if (bad.length > 0) console.log(["", "What should not be:", ...bad].join("\n"));
  const parts = Object.entries(counts).map(([verdict, count]) => `${count} ${verdict}`);
  console.log(`${chosen.length} mistakes: ${parts.join(", ")}`);
  return bad.length > 0 ? 1 : 0;
}

// At most n of a list, at equal distances.
function spread(list, n) {
  const step = Math.max(1, list.length / n);
  const count = Math.min(n, list.length);
  return Array.from({ length: count }, (_, i) => list[Math.floor(i * step)]);
}

if (isMainThread) {
  const options = {
    only: { type: "string" },
    sample: { type: "string" },
    vectors: { type: "string" },
    write: { type: "boolean" },
  };
  process.exitCode = await main(parseArgs({ options }).values);
} else {
  work();
}
