"""What `import sttrl` offers. `sttrl/__init__.py` names it, and loads it when it is first used."""
