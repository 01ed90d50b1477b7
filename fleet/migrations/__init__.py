"""The database's schema, step by step (Alembic); part of the wheel, run by `lineside-fleet db upgrade`."""
