import { describe, expect, test } from 'vitest';
import type { Plan } from '../plan.js';
import { runPlan } from '../run.js';

/** Shrunk from seeds at which the oracle asked for equal vectors while a member was away, which holds the last step up. */
const PLANS: Record<string, Plan> = {
  'a host that a backup put in doubt still names what its source has forgotten': {
    seed: 10098,
    nodes: 3,
    allJoin: false,
    sharedHost: false,
    flushes: true,
    options: { ackTimeoutMs: 1363, tokenAgeMaxMs: 508, lateRetryMs: 5863 },
    tinyCaps: false,
    rates: { delayMs: 0.45506122686717654, jitterMs: 0.4724586787318566, loss: 0, duplicate: 0 },
    diskMs: 5.142817668317859,
    clockOffsetsMs: [-1655, 47, 2300],
    durationMs: 10638.639087837053,
    minority: 'cut',
    healOrder: [0.282927728490904, 0.298650044715032, 0.8511610343120992],
    events: [
      {
        at: 5024.565043742229,
        kind: 'powerCut',
        node: 1,
        a: 0.23427231679670513,
        b: 0.06450676149688661,
        c: 0.5435445201583207,
      },
      {
        at: 5161.333600556985,
        kind: 'write',
        node: 1,
        a: 0.9864724441431463,
        b: 0.6432094112969935,
        c: 0.7359559922479093,
      },
      {
        at: 5287.471764954047,
        kind: 'restoreBackup',
        node: 0,
        a: 0.13869460974819958,
        b: 0.8637020762544125,
        c: 0.5612701934296638,
      },
      {
        at: 10222.603807728261,
        kind: 'restoreBackup',
        node: 2,
        a: 0.8261744894552976,
        b: 0.1352484857197851,
        c: 0.5867862713057548,
      },
      {
        at: 12961.21842102594,
        kind: 'restoreBackup',
        node: 0,
        a: 0.007247983245179057,
        b: 0.49173760623671114,
        c: 0.11590958386659622,
      },
      {
        at: 13010.409735004363,
        kind: 'powerCut',
        node: 1,
        a: 0.5072669421788305,
        b: 0.22768935654312372,
        c: 0.3256666043307632,
      },
    ],
  },
  'a host that lost its tail still names what the others have forgotten': {
    seed: 10535,
    nodes: 4,
    allJoin: false,
    sharedHost: false,
    flushes: true,
    options: { ackTimeoutMs: 681, tokenAgeMaxMs: 460 },
    tinyCaps: false,
    rates: {
      delayMs: 13.606912417478524,
      jitterMs: 0.12252119018480645,
      loss: 0,
      duplicate: 0.017708460689218487,
    },
    diskMs: 6.241281924299552,
    clockOffsetsMs: [-765, 1769, 1284, 919],
    durationMs: 19665.768869451083,
    minority: 'stopped',
    healOrder: [0.5426152844447643, 0.8788735377602279, 0.04560516751371324, 0.12293087411671877],
    events: [
      {
        at: 8736.964526480057,
        kind: 'write',
        node: 3,
        a: 0.6384946217294782,
        b: 0.17329726298339665,
        c: 0.900246495148167,
      },
      {
        at: 10368.004483496254,
        kind: 'write',
        node: 3,
        a: 0.8223101741168648,
        b: 0.5016750108916312,
        c: 0.6848571854643524,
      },
      {
        at: 10569.045364512924,
        kind: 'restoreBackup',
        node: 3,
        a: 0.6899058320559561,
        b: 0.7888632842805237,
        c: 0.09037495404481888,
      },
      {
        at: 16987.764032452906,
        kind: 'restoreBackup',
        node: 1,
        a: 0.705582577502355,
        b: 0.5855530882254243,
        c: 0.45585236814804375,
      },
      {
        at: 20395.831445953496,
        kind: 'powerCut',
        node: 2,
        a: 0.6456824685446918,
        b: 0.490004901541397,
        c: 0.5613655145280063,
      },
      {
        at: 20713.905330448408,
        kind: 'restoreBackup',
        node: 1,
        a: 0.4303943491540849,
        b: 0.714054650394246,
        c: 0.8603520984761417,
      },
      {
        at: 21255.779232343262,
        kind: 'write',
        node: 1,
        a: 0.8547783147078007,
        b: 0.11857663816772401,
        c: 0.6555256433784962,
      },
    ],
  },
};

describe('ended origins while a member is away', () => {
  for (const [name, plan] of Object.entries(PLANS))
    test(`${name}: the copies are equal all the same`, () => {
      expect(runPlan(plan).failure).toBeUndefined();
      // With all of them back the vectors are, too.
      expect(runPlan({ ...plan, minority: 'none' }).failure).toBeUndefined();
    });
});
