// The scenario as users of ioredis say it.
import { Cluster, Redis } from 'ioredis';
import { gathered, hex, inPairs, main } from './run.mjs';

const scored = (flat) => inPairs(flat).map(([member, score]) => [member, Number(score)]);
const number = (text) => (text === null ? null : Number(text));

// how a verb is said where its name or its arguments differ; `client` may be a pipeline
const said = {
  set_for: (client, key, value, seconds) => client.set(key, value, 'EX', seconds),
  set_bytes: (client, key, value) => client.set(key, hex(value)),
  get_bytes: (client, key) => client.getBuffer(key),
  zadd: (client, key, scores) => client.zadd(key, ...Object.entries(scores).flatMap(([member, score]) => [score, member])),
  zrange_scores: (client, key, first, last) => client.zrange(key, first, last, 'WITHSCORES'),
};

// what is told, where the client gives Redis' own form
const told = {
  get_bytes: (value) => value.toString('hex'),
  incrbyfloat: number,
  hincrbyfloat: number,
  zscore: number,
  zincrby: number,
  zmscore: (texts) => texts.map(number),
  zrange_scores: scored,
  zpopmin: scored,
};

const call = (client, [name, ...words]) => (said[name] ? said[name](client, ...words) : client[name](...words));
const plain = ([name], value) => (told[name] ? told[name](value) : value);

async function connect({ port, cluster }) {
  const client = cluster ? new Cluster([{ host: '127.0.0.1', port }]) : new Redis({ host: '127.0.0.1', port });

  async function batch(started, verbs) {
    for (const verb of verbs) call(started, verb);
    return (await started.exec()).map(([failed, value], place) => {
      if (failed) throw failed;
      return plain(verbs[place], value);
    });
  }

  const several = {
    pipeline: (verbs) => batch(client.pipeline(), verbs),
    transaction: (verbs) => batch(client.multi(), verbs),
    async watched(key, value) {
      await client.watch(key);
      await client.set(key, value);
      return client.multi().get(key).exec();
    },
    async scan(pattern) {
      const nodes = cluster ? client.nodes('master') : [client];
      const found = await Promise.all(nodes.map((node) => gathered(node.scanStream({ match: pattern, count: 50 }))));
      return found.flat();
    },
    hscan: async (key) => Object.fromEntries(inPairs(await gathered(client.hscanStream(key, { count: 10 })))),
    zscan: async (key) => Object.fromEntries(scored(await gathered(client.zscanStream(key, { count: 10 })))),
  };
  return {
    act: async (verb) => (several[verb[0]] ? several[verb[0]](...verb.slice(1)) : plain(verb, await call(client, verb))),
    close: () => client.quit(),
  };
}

await main(connect);
