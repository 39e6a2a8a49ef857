/** The build of msgpackr that evaluates nothing offers what the usual one does, and has no types of its own. */
declare module 'msgpackr/index-no-eval' {
  export * from 'msgpackr';
}
