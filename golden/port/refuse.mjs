// A port has to refuse wrong inputs on purpose: the runner tells these errors from accidents.

export class Refused extends Error {}

export function check(ok, message) {
  if (!ok) throw new Refused(message);
}
