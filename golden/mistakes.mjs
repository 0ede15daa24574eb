// Plants mistakes in the JavaScript port, one after the other, and prints which vector tells each
// apart: whoever makes the same one in another language will see that vector fail.
//
//     node golden/mistakes.mjs [--only FILE] [--sample N] [--write]
//
// mistakes/*.json hold them, a file a stage: `file` of port/, the `mistake` in words, the `old` text,
// which stands in the file once, and the `new` one; and either `caught`, the case that tells it
// apart, or `equivalent`: why none can. --only takes those of one file of port/, --sample N spread
// over all. --write puts into the lists which case catches what, the first in the order of stages.
//
// Each mistake is planted in a copy of the port. A worker runs the cases, first the one that the
// list names, until one fails. The exit status is 1 if a mistake survives, if an equivalent one does
// not, if a case that the list names no longer catches, or if a text is not in its file once.

import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { isMainThread, parentPort, Worker } from "node:worker_threads";

const HERE = dirname(fileURLToPath(import.meta.url));
const LISTS = join(HERE, "mistakes");
const PORT = join(HERE, "port");
const PATIENCE = 60; // seconds without a word from the worker: a loop that does not end

// ------------------------------------------------------------------------------------ the worker

// Gets {port: a directory, first: the name of a case or null}; answers with {trying: the name of a
// case} before each, and in the end with {caught: name or null, text}.
function work() {
  const files = new Map();
  parentPort.on("message", async ({ port, first }) => {
    try {
      const runner = await import(pathToFileURL(join(port, "runner.mjs")));
      const cases = runner.STAGES.flatMap((stage) => {
        if (!files.has(stage)) files.set(stage, readFileSync(join(HERE, `${stage}.json`), "utf8"));
        const named = (one) => ({ ...one, title: `${stage}: ${one.name}` });
        return runner.casesOf(files.get(stage), stage).map(named);
      });
      const likely = cases.filter((one) => one.title === first);
      const others = cases.filter((one) => one.title !== first);
      parentPort.postMessage(firstWrong(runner.judge, [...likely, ...others]));
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

// ---------------------------------------------------------------------------------- the main thread

let worker = null;

// What the worker says of a copy of the port. A worker that says nothing for long is ended.
function tried(port, first) {
  worker ??= new Worker(fileURLToPath(import.meta.url));
  return new Promise((resolve) => {
    let trying = null;
    const endless = () => {
      worker.terminate();
      worker = null;
      const text = `no end after ${PATIENCE} seconds`;
      resolve(trying === null ? { broken: text } : { caught: trying, text });
    };
    let timer = setTimeout(endless, 1000 * PATIENCE);
    const hear = (message) => {
      clearTimeout(timer);
      if ("trying" in message) {
        trying = message.trying;
        timer = setTimeout(endless, 1000 * PATIENCE);
        return;
      }
      worker.off("message", hear);
      resolve(message);
    };
    worker.on("message", hear);
    worker.postMessage({ port, first });
  });
}

function readLists() {
  return readdirSync(LISTS).filter((name) => name.endsWith(".json")).sort().map((name) => {
    const path = join(LISTS, name);
    return { path, mistakes: JSON.parse(readFileSync(path, "utf8")) };
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
async function verdictOn(mistake, copies) {
  const copy = planted(copies, mistake);
  if (copy === null) return { verdict: "stale", text: "the old text is not there once" };
  const { caught, text, broken } = await tried(copy, mistake.caught ?? null);
  rmSync(copy, { recursive: true });
  if (broken) return { verdict: "broken", text: broken };
  if (caught && mistake.equivalent) return { verdict: "not equivalent", caught, text };
  if (caught && mistake.caught && caught !== mistake.caught) {
    return { verdict: "caught elsewhere", caught, text };
  }
  if (caught) return { verdict: "caught", caught, text };
  if (mistake.equivalent) return { verdict: "equivalent", text: mistake.equivalent };
  return { verdict: "survives", text: "no case tells it apart" };
}

const GOOD = ["caught", "equivalent"];

async function main({ only, sample, write }) {
  const lists = readLists();
  const all = lists.flatMap(({ mistakes }) => mistakes);
  const asked = all.filter(({ file }) => only === undefined || file === only);
  const chosen = spread(asked, sample === undefined ? asked.length : Number(sample));
  const copies = mkdtempSync(join(tmpdir(), "mistakes-"));
  const counts = {};
  const bad = [];
  for (const mistake of chosen) {
    if (write && !mistake.equivalent) delete mistake.caught; // anew, by the first case of all
    const { verdict, caught, text } = await verdictOn(mistake, copies);
    if (write && verdict === "caught") mistake.caught = caught;
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
    write: { type: "boolean" },
  };
  process.exitCode = await main(parseArgs({ options }).values);
} else {
  work();
}
