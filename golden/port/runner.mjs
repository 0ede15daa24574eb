// The runner: what a case gives is held against what it should give.

import { flat, nested, same, shapeOf, total, zip } from "./arrays.mjs";
import { Tensor } from "./autodiff.mjs";
import { FUNCTIONS } from "./cases.mjs";
import { Refused } from "./refuse.mjs";

export const STAGES = ["1-autodiff", "2-envs", "3-policies", "4-steps", "5-evolution-strategies",
  "6-runs"];

const TEXTS = { inf: Infinity, "-inf": -Infinity, nan: NaN };

// An array has "shape" and "data": one of them alone, as in the options of reshape, is a name like
// any other.
export function decode(v) {
  if (typeof v === "string") return TEXTS[v] ?? v;
  if (v === null || typeof v !== "object") return v;
  if (Array.isArray(v)) return v.map(decode);
  if ("shape" in v && "data" in v) return nested(v.shape, v.data.map(decode));
  return Object.fromEntries(Object.entries(v).map(([key, x]) => [key, decode(x)]));
}

// Numbers are compared by the tolerance times the largest finite one that is wanted; booleans,
// infinity and NaN have to be equal.
export function close(got, want, tolerance) {
  const found = got instanceof Tensor ? got.value : got;
  if (!same(shapeOf(found), shapeOf(want))) return false;
  const sizes = flat(want).filter(Number.isFinite).map(Math.abs);
  const scale = sizes.reduce((a, b) => Math.max(a, b), 0) || 1;
  const right = (x, y) => {
    if (Number.isFinite(x) && Number.isFinite(y)) return Math.abs(x - y) <= tolerance * scale;
    return Object.is(x, y);
  };
  return zip(right, flat(found), flat(want)).every(Boolean);
}

// What is wrong with a case: a list of texts, empty if nothing is.
export function judge({ function: name, inputs, rejects, tolerance, ...given }) {
  let got;
  try {
    got = FUNCTIONS[name](decode(inputs));
  } catch (error) {
    if (rejects && error instanceof Refused) return [];
    throw error;
  }
  if (rejects) return ["wrong inputs are not refused"];
  const agrees = ([field, want]) => {
    return field in got && close(got[field], decode(want), tolerance[field]);
  };
  const wanted = Object.entries({ ...given.intermediate, ...given.outputs });
  const texts = wanted.filter((one) => !agrees(one)).map(([field]) => `${field} differs`);
  for (const { fault, outputs } of given.faults ?? []) {
    const like = Object.entries(outputs).filter(agrees);
    texts.push(...like.map(([field]) => `${field} as if ${fault}`));
  }
  return texts;
}

// The cases of a file, which is JSON text.
export function casesOf(text, stage) {
  const { format, version, cases } = JSON.parse(text);
  if (format !== "metarl golden vectors" || version !== 1) {
    throw new Error(`${stage}: another format or version`);
  }
  return cases;
}

// Prints a line for each field that is wrong, and one for each function of the stage. Returns how
// many cases failed. Where the port has no such function, a case is not ported.
export function runStage(stage, cases, print) {
  const groups = {};
  for (const one of cases) {
    groups[one.function] ??= { passed: [], failed: [], "not ported": [] };
    const verdict = verdictOn(one, (text) => print(`${stage}: ${one.name}: ${text}`));
    groups[one.function][verdict].push(one);
  }
  for (const [name, group] of Object.entries(groups)) {
    const counts = Object.entries(group).map(([verdict, list]) => `${list.length} ${verdict}`);
    const refused = group.passed.filter((one) => one.rejects).length;
    const faults = total(group.passed.map((one) => one.faults?.length ?? 0));
    const more = `${refused} wrong inputs refused, ${faults} faults told apart`;
    print(`${stage} ${name}: ${counts.join(", ")}; ${more}`);
  }
  return total(Object.values(groups).map((group) => group.failed.length));
}

function verdictOn(one, print) {
  if (!Object.hasOwn(FUNCTIONS, one.function)) return "not ported";
  try {
    const texts = judge(one);
    texts.forEach(print);
    return texts.length === 0 ? "passed" : "failed";
  } catch (error) {
    print(error.stack);
    return "failed";
  }
}
