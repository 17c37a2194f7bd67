/**
 * Loaded before each file of properties: they draw the same cases every time, so that what fails is the doing of what was
 * changed. `HOLDFAST_TEST_SEED=random` draws new ones, another number others; what fails names the seed that it was drawn by.
 */
import fc from 'fast-check';

const wanted = process.env.HOLDFAST_TEST_SEED ?? '1';
const seed = wanted === 'random' ? Math.floor(Math.random() * 2 ** 31) : Number(wanted);
if (!Number.isInteger(seed)) throw new Error(`HOLDFAST_TEST_SEED=${wanted}: give a whole number, or random`);
fc.configureGlobal({ ...fc.readConfigureGlobal(), seed });
