import { describe, expect, it } from 'vitest';
import { MemoryStore } from '../../src/storage/memory-store.js';
import { storeContract } from './contract.js';
import { drainKeys, ORIGIN_A, puts } from './records.js';

storeContract('memory', async () => {
  let store = new MemoryStore();
  return {
    get store() {
      return store;
    },
    async reopen() {
      await store.close();
      store = new MemoryStore({ contents: store.contents() });
    },
    async damage(key) {
      store.damage(key);
    },
    dispose: () => store.close(),
  };
});

describe('memory store', () => {
  it('a failed batch is lost or kept as asked, and no later one is written until it is reopened', async () => {
    for (const fate of ['lost', 'kept'] as const) {
      const store = new MemoryStore();
      await store.write(puts(ORIGIN_A, 1, ['a']));
      store.failNextWrite(fate);
      await expect(store.write(puts(ORIGIN_A, 2, ['b']))).rejects.toMatchObject({ code: 'STORE_FAILED' });
      await expect(store.write(puts(ORIGIN_A, 3, ['c']))).rejects.toMatchObject({ code: 'STORE_FAILED' });
      expect(store.getRow('a')).toBeDefined();
      const reopened = new MemoryStore({ contents: store.contents() });
      expect(await drainKeys(reopened.rows({}))).toEqual(fate === 'lost' ? ['a'] : ['a', 'b']);
      await reopened.write(puts(ORIGIN_A, 3, ['c']));
    }
  });

  it('contents taken earlier are a disk that lost what came later', async () => {
    const store = new MemoryStore({ flushes: false });
    expect(store.flushes).toBe(false);
    await store.write(puts(ORIGIN_A, 1, ['a']));
    const earlier = store.contents();
    await store.write(puts(ORIGIN_A, 2, ['b']));
    const rolledBack = new MemoryStore({ contents: earlier });
    expect(rolledBack.recovered.heads.get(ORIGIN_A)).toBe(1);
    expect(await drainKeys(rolledBack.rows({}))).toEqual(['a']);
  });
});
