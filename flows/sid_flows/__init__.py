"""Recipes, plans and runs: which stages a recipe needs, which are done, and how the rest is run.

    recipe -> plan -> execute (one stage) -> build (all of it as a Prefect flow)

Prefect is imported by `build` alone, so that a plan, and a run with nothing to do, stay quick.
"""
