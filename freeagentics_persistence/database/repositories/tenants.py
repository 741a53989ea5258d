"""Tenants and their keyring."""

from __future__ import annotations

from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from freeagentics_persistence.database.driver_errors import constraint_of
from freeagentics_persistence.database.engine import HARMLESS, Database
from freeagentics_persistence.database.models import keyring, tenants
from freeagentics_persistence.domain.validation import require_text
from freeagentics_persistence.errors import AlreadyExists, PersistenceError
from freeagentics_persistence.ports.keys import KeyState, WrappedKey

_MADE = "Repeat the call: AlreadyExists then means that it was made, and that its id is {}."


class TenantRepository:
    """Makes tenants; keeps their wrapped data keys (the KeyringStore)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create_tenant(self, name: str, tenant_id: UUID | None = None) -> UUID:
        """Make a tenant; its id. Raises InvalidInput, AlreadyExists."""
        require_text("name", name, limit=255)
        own = tenant_id or uuid4()
        try:
            async with self._database.write(own, tenant_is_new=True, if_unknown=_MADE.format(own)) as connection:
                await connection.execute(sa.insert(tenants).values(id=own, name=name))
        except PersistenceError as error:
            if error.__cause__ is not None and constraint_of(error.__cause__).startswith("tenants_"):
                raise AlreadyExists(f"a tenant named {name!r} or with id {own} exists already.") from error
            raise
        return own

    async def load_keys(self, tenant_id: UUID) -> list[WrappedKey]:
        """See ports.keys.KeyringStore."""
        async with self._database.read(tenant_id) as connection:
            rows = (await connection.execute(sa.select(keyring).where(keyring.c.tenant_id == tenant_id))).all()
        return [
            WrappedKey(
                tenant_id=tenant_id,
                key_id=UUID(int=row.key_id.int),
                state=KeyState(row.state),
                wrapped=row.wrapped_key,
                kek_reference=row.kek_reference,
            )
            for row in rows
        ]

    async def add_first_key(self, key: WrappedKey) -> None:
        """See ports.keys.KeyringStore."""
        values = {
            "tenant_id": key.tenant_id,
            "key_id": key.key_id,
            "state": key.state.value,
            "wrapped_key": key.wrapped,
            "kek_reference": key.kek_reference,
        }
        async with self._database.write(key.tenant_id, if_unknown=HARMLESS) as connection:
            await connection.execute(insert(keyring).values(values).on_conflict_do_nothing())
