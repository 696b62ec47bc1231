"""Make an artefact's confidence mean something: temperature, thresholds, coverage, second opinion.

The device's part is small: a temperature, thresholds and floors of the contract.
"""
