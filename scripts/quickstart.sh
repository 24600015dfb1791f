#!/usr/bin/env bash
# From a bare machine to a trained and sampled model:
#   bash scripts/quickstart.sh [--workdir DIR] [--config.section.key=value …]
#   bash scripts/quickstart.sh --config.corpus.path=BOOK      for a book of your own
# The run is kept in DIR, else in $WORKDIR, else in runs/tiny, or runs/<book's name>, of the
# project. Run again, it resumes or tells that it is done.
from="$PWD"
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
given="${WORKDIR:-}" relative=""
words=() book=""
while (($#)); do
  case "$1" in
    --workdir) given="${2:?--workdir needs a folder}" relative=1 && shift ;;
    --workdir=*) given="${1#--workdir=}" relative=1 ;;
    --config.corpus.path=?*)
      book="${1#--config.corpus.path=}"
      case "$book" in [/~]*) ;; *) book="$from/$book" ;; esac # as the folder of DIR below
      words+=("--config.corpus.path=$book") ;;
    *) words+=("$1") ;;
  esac
  shift
done
workdir="${given:-runs/tiny}"
# environment.sh has changed the folder: a relative DIR is meant from where the command was given.
if [ -n "$relative" ]; then
  case "$workdir" in [/~]*) ;; *) workdir="$from/$workdir" ;; esac
fi
fit="" prompt=黛玉听了，
if [ -n "$book" ]; then
  name="$(basename "${book%.*}")"
  if [ -d "$book" ]; then name="$(cd "$book" && basename "$PWD")"; fi # also of . and ..
  workdir="${given:+$workdir}" workdir="${workdir:-runs/$name}"
  # The vocabulary and the number of steps that suit the book; words given above come after them.
  keys=()
  for word in "${words[@]}"; do case "$word" in --config.*) keys+=("$word") ;; esac; done
  fit="$("$PYTHON" scripts/book.py --settings "${keys[@]}")"
fi
trap 'stopped=1' INT TERM HUP # the training gets the signal too, saves and ends
# shellcheck disable=SC2086 # $fit is words
"$PYTHON" -m hlm_jax.train --config configs/tiny.py --workdir "$workdir" \
  $fit ${words[@]+"${words[@]}"} # an empty list is unset in bash 3
if [ -n "${stopped:-}" ]; then exit 0; fi
trap - INT TERM HUP
if [ -n "$book" ]; then # continue the beginning of a chapter of that book
  read_opening='import json, sys; print(json.load(open(sys.argv[1], encoding="utf-8"))["opening"])'
  prompt="$("$PYTHON" -c "$read_opening" "$workdir/corpus.json")"
fi
echo
printf '.venv/bin/python scripts/sample.py --workdir %q --prompt %q --max_new_tokens 200\n' \
  "$workdir" "$prompt"
"$PYTHON" scripts/sample.py --workdir "$workdir" --prompt "$prompt" --max_new_tokens 200
