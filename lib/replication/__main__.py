"""Command line: ``python -m lib.replication list | run | verify | table``."""

import argparse
import os
import re
import sys

from . import registry, runner, store
from .tables import claims_table
from .verify import verify


def main(arguments=None):
    """
    Run one command.

    Parameters
    ----------
    arguments : list of str, optional
        The command line; that of the process by default.

    Returns
    -------
    int
        Exit code: 0, 1 if verdicts differ, 2 for a wrong name, 128 + signal number.
    """
    options = _parser().parse_args(arguments)
    if options.experiments:
        os.environ[registry.EXPERIMENTS_VARIABLE] = options.experiments
    try:
        return options.command(options) or 0
    except registry.RegistryError as error:
        print(error, file=sys.stderr)
        return 2


def _parser():
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--results", metavar="DIR", help="folder of all results")
    shared.add_argument(
        "--experiments",
        metavar="MODULE",
        help="modules that declare experiments, instead of the book's own",
    )
    parser = argparse.ArgumentParser(prog="python -m lib.replication")
    commands = parser.add_subparsers(required=True, metavar="list|run|verify|table")

    def add(name, function, text):
        command = commands.add_parser(name, parents=[shared], help=text)
        command.set_defaults(command=function)
        return command

    add("list", _list, "every experiment and tier: done, stale or not run")
    run = add("run", _run, "compute what is missing of an experiment")
    run.add_argument("name")
    run.add_argument("--tier", choices=registry.TIERS, default="quick")
    run.add_argument("--seeds", type=_positive, metavar="N")
    run.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1")
    run.add_argument("--max-minutes", type=float, metavar="M")
    run.add_argument(
        "--commit", type=_sha, metavar="SHA", help="where there is no git to ask"
    )
    run.add_argument("--dask", metavar="ADDRESS", help="tcp://host:port of a scheduler")
    check = add("verify", _verify, "recompute every verdict; exit 1 if one differs")
    check.add_argument("--write", action="store_true", help="store what was found")
    table = add("table", _table, "claims with their verdicts")
    table.add_argument("paper", nargs="?", help="citation key; all by default")
    return parser


def _positive(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least one seed")
    return number


def _sha(text):
    if not re.fullmatch("[0-9a-f]{7,40}", text):
        raise argparse.ArgumentTypeError("7 to 40 hexadecimal digits")
    return text


def _list(options):
    for experiment in registry.experiments().values():
        for tier in registry.TIERS:
            state = runner.status(experiment, tier, options.results)
            print(f"{experiment.name:24s} {tier:6s} {_describe(**state)}")


def _describe(planned, done, stale):
    if not planned:
        return "no configurations"
    if not done:
        return f"not run 0/{planned}"
    return f"done {done}/{planned}" + (f", {stale} stale" if stale else "")


def _run(options):
    experiment = registry.experiment(options.name)
    try:
        line = runner.run(
            options.name,
            options.tier,
            seeds=options.seeds,
            device=options.device,
            max_minutes=options.max_minutes,
            commit=options.commit,
            dask=options.dask,
            results=options.results,
        )
    except runner.Stopped as stop:
        state = _describe(**runner.status(experiment, options.tier, options.results))
        print(
            f"{options.name} {options.tier}: {stop}; {state}; "
            "the same command goes on from there",
            file=sys.stderr,
        )
        return 128 + stop.number
    print(line)


def _verify(options):
    differences = verify(write=options.write, results=options.results)
    for line in differences:
        print(line)
    path = (options.results or store.RESULTS.name) + "/verdicts.json"
    if not differences:
        print(f"{path} agrees with {len(registry.claims())} claims")
    elif options.write:
        print(f"{path} written")
    else:
        print(f"{path} differs; `verify --write` regenerates it")
    return 1 if differences and not options.write else 0


def _table(options):
    papers = dict.fromkeys(claim.paper for claim in registry.claims())
    if options.paper and options.paper not in papers:
        raise registry.RegistryError(f"no claims of {options.paper!r}: {list(papers)}")
    for paper in [options.paper] if options.paper else papers:
        print(f"[{paper}]\n{claims_table(paper, results=options.results)}\n")


if __name__ == "__main__":
    sys.exit(main())
