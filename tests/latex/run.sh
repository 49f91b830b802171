#!/usr/bin/env bash
# Compiles the LaTeX that `longhaul report` writes, of the quick run that is kept here and of the same with names
# full of signs that LaTeX takes for something else, in one column and in two: no error, nothing wider than its
# column, and every name comes out as text. Then the figures, each at its own size in a text 174 mm wide: no error,
# nothing wider, names as text, and no font that the file does not hold. Needs pdflatex and pdftotext (Debian: texlive-latex-base,
# texlive-latex-recommended, poppler-utils); builds `longhaul` where it is not there.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$PWD/target/latex
longhaul=${CARGO_TARGET_DIR:-target}/release/longhaul
[ -x "$longhaul" ] || cargo build --release --quiet --workspace --lib --bins
rm -rf "$work"
mkdir -p "$work/hostile"

# The task and an architecture by names of such signs.
hostile='a<b>&c_d%e"f\g#h$i{j}k~l^m|n'"'o\`p--q"
python3 - "$hostile" results/reference/quick/results.csv "$work/hostile/results.csv" <<'PYTHON'
import csv, sys
name, source, to = sys.argv[1:]
with open(source) as source, open(to, "w") as to:
    rows = csv.DictReader(source)
    writer = csv.DictWriter(to, rows.fieldnames, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(row | {key: name for key in ("task", "architecture") if row[key] in ("mqar", "mamba")})
PYTHON

# What a document says, on lines as they stand.
compile() {
  local document=$1
  if ! pdflatex -interaction=nonstopmode -halt-on-error "$document.tex" > "$document.out" 2>&1; then
    tail -30 "$document.out" >&2
    return 1
  fi
  if grep -E '^(Overfull|LaTeX Warning: .*(undefined|multiply))' "$document.log" >&2; then
    echo "$PWD/$document.tex: too wide, or not whole" >&2
    return 1
  fi
  pdftotext -layout "$document.pdf" -
}

for run in quick hostile; do
  folder=$work/$run-report
  [ "$run" = quick ] && source=results/reference/quick || source=$work/hostile
  "$longhaul" report "$source" --out "$folder" > "$work/$run.txt"
  cd "$folder"
  sed 's/{article}/[twocolumn]{article}/; /geometry/d' tables.tex > two.tex
  for document in tables two; do
    text=$(compile "$document")
    [ "$run" = quick ] && name=mamba || name=$hostile
    grep -qF "$name" <<< "$text" || { echo "$folder/$document.pdf does not say $name" >&2; exit 1; }
  done
  {
    printf '%s\n' '\documentclass{article}' '\usepackage{graphicx}' '\usepackage[textwidth=174mm,textheight=240mm]{geometry}' \
      '\setlength{\parindent}{0pt}' '\begin{document}'
    for figure in figures/*.pdf; do printf '\\includegraphics{%s}\n\n' "$figure"; done
    printf '%s\n' '\end{document}'
  } > figures.tex
  text=$(compile figures)
  grep -qF "$name" <<< "$text" || { echo "$folder/figures.pdf does not say $name" >&2; exit 1; }
  if pdffonts figures.pdf | awk 'NR > 2 && $(NF-4) != "yes"' | grep . >&2; then
    echo "$folder/figures.pdf does not hold these fonts" >&2
    exit 1
  fi
  cd - > /dev/null
  echo "the figures of the $run run compile, with their fonts"
  echo "the tables of the $run run compile in one column and in two"
done
