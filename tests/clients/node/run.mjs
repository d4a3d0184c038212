// What both drivers share: {port, cluster, resp, verbs} comes as JSON on standard input, what came of each verb leaves as JSON.
import { text } from 'node:stream/consumers';

export async function main(connect) {
  const { port, cluster, resp, verbs } = JSON.parse(await text(process.stdin));
  const { act, close } = await connect({ port, cluster, resp });
  const given = [];
  for (const verb of verbs) {
    try {
      given.push(await act(verb));
    } catch (failed) {
      given.push({ error: failed.message });
    }
  }
  await close();
  process.stdout.write(JSON.stringify(given));
}

export const hex = (value) => Buffer.from(value, 'hex');

export async function gathered(pages) {
  const all = [];
  for await (const page of pages) all.push(...page);
  return all;
}

export function inPairs(flat) {
  const pairs = [];
  for (let place = 0; place < flat.length; place += 2) pairs.push([flat[place], flat[place + 1]]);
  return pairs;
}
