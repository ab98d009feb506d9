"""From what runs elsewhere today to this file's format: read → apply the rules → size → write → report.

Readers find settings and nothing else; the rules in migrations/*.yaml say what becomes of each; transforms do it to a
draft; the writers turn the draft into text. Everything is in memory until all of it is known to be valid.
"""
