// A port to JavaScript, without dependencies, written from README.md and the vectors alone. It
// recomputes the vectors, prints a line for each group of cases, and exits with 1 if any differs.
//
//     node golden/port.mjs [directory of the vectors]
//
// Read port/ in this order: arrays, matrices; autodiff, operations (stage 1); noise, distributions,
// families (2); policies, episodes (3); steps, outer (4); points, strategies, cma (5); black_boxes
// (4), runs (6); cases, the functions that the vectors name; runner. Data are numbers and nested
// arrays of them, only what is differentiated is a Tensor. Policies and losses are written for one
// task, and loops run over tasks.

import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { casesOf, runStage, STAGES } from "./port/runner.mjs";

const directory = process.argv[2] ?? dirname(fileURLToPath(import.meta.url));
let failures = 0;
for (const stage of STAGES) {
  const text = readFileSync(join(directory, `${stage}.json`), "utf8");
  failures += runStage(stage, casesOf(text, stage), console.log);
}
process.exitCode = failures > 0 ? 1 : 0;
