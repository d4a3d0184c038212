// The scenario as users of node-redis say it, in RESP2 and RESP3.
import { createClient, createCluster, RESP_TYPES, WatchError } from 'redis';
import { gathered, hex, main } from './run.mjs';

const scored = (members) => members.map(({ value, score }) => [value, score]);

// how a verb is said where it is not the command's name in camel case; `client` may be a multi
const said = {
  set_for: (client, key, value, seconds) => client.set(key, value, { EX: seconds }),
  set_bytes: (client, key, value) => client.set(key, hex(value)),
  get_bytes: (client, key) => client.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer }).get(key),
  zadd: (client, key, scores) => client.zAdd(key, Object.entries(scores).map(([value, score]) => ({ value, score }))),
  zrange_scores: (client, key, first, last) => client.zRangeWithScores(key, first, last),
  zrevrange: (client, key, first, last) => client.zRange(key, first, last, { REV: true }),
  zpopmin: (client, key, count) => client.zPopMinCount(key, count),
};

const told = {
  get_bytes: (value) => value.toString('hex'),
  incrbyfloat: Number,
  hincrbyfloat: Number,
  zrange_scores: scored,
  zpopmin: scored,
};

const camel = {
  setnx: 'setNX', incrby: 'incrBy', incrbyfloat: 'incrByFloat', mget: 'mGet', mset: 'mSet', getdel: 'getDel', strlen: 'strLen', pttl: 'pTTL',
  hset: 'hSet', hget: 'hGet', hgetall: 'hGetAll', hmget: 'hmGet', hlen: 'hLen', hexists: 'hExists', hincrby: 'hIncrBy',
  hincrbyfloat: 'hIncrByFloat', hdel: 'hDel', hkeys: 'hKeys', hvals: 'hVals',
  zcard: 'zCard', zscore: 'zScore', zmscore: 'zmScore', zrange: 'zRange', zrangebyscore: 'zRangeByScore', zcount: 'zCount', zrank: 'zRank',
  zincrby: 'zIncrBy', zrem: 'zRem',
};

const call = (client, [name, ...words]) => (said[name] ? said[name](client, ...words) : client[camel[name] ?? name](...words));
const plain = ([name], value) => (told[name] ? told[name](value) : value);

async function connect({ port, cluster, resp }) {
  const url = `redis://127.0.0.1:${port}`;
  const client = cluster ? createCluster({ rootNodes: [{ url }], RESP: resp }) : createClient({ url, RESP: resp });
  client.on('error', (failed) => process.stderr.write(`${failed}\n`));
  await client.connect();

  async function batch(verbs, run) {
    const started = client.multi();
    for (const verb of verbs) call(started, verb);
    return (await run(started)).map((value, place) => plain(verbs[place], value));
  }

  const nodes = () => (cluster ? Promise.all(client.masters.map((one) => client.nodeClient(one))) : [client]);

  const several = {
    pipeline: (verbs) => batch(verbs, (started) => started.execAsPipeline()),
    transaction: (verbs) => batch(verbs, (started) => started.exec()),
    async watched(key, value) {
      const node = cluster ? await client.nodeClient(client.slots[await slotOf(key)].master) : client;
      await node.watch(key);
      await node.set(key, value);
      try {
        return await node.multi().get(key).exec();
      } catch (failed) {
        if (failed instanceof WatchError) return null;
        throw failed;
      }
    },
    scan: async (pattern) => gathered(pagesOf(await nodes(), pattern)),
    async hscan(key) {
      const entries = await gathered(elementsOf((cursor) => client.hScan(key, cursor, { COUNT: 10 }), 'entries'));
      return Object.fromEntries(entries.map(({ field, value }) => [field, value]));
    },
    async zscan(key) {
      const members = await gathered(elementsOf((cursor) => client.zScan(key, cursor, { COUNT: 10 }), 'members'));
      return Object.fromEntries(scored(members));
    },
  };

  async function slotOf(key) {
    const [first] = await nodes();
    return Number(await first.sendCommand(['CLUSTER', 'KEYSLOT', key]));
  }

  return {
    act: async (verb) => (several[verb[0]] ? several[verb[0]](...verb.slice(1)) : plain(verb, await call(client, verb))),
    close: () => client.close(),
  };
}

async function* pagesOf(nodes, pattern) {
  for (const node of nodes) yield* node.scanIterator({ MATCH: pattern, COUNT: 50 });
}

async function* elementsOf(page, name) {
  let cursor = '0';
  do {
    const found = await page(cursor);
    yield found[name];
    cursor = found.cursor;
  } while (cursor !== '0');
}

await main(connect);
