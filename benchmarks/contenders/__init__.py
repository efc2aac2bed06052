"""One file per contender; `benchmarks.question.Contender` says what it offers."""
