"""Bumble's controller with what it lacks on an air that takes time.

Data length, PHY and connection parameters have effects; data waits for connection events, and the
credit for a packet comes back once it has arrived; a connection that never comes can be cancelled.
"""

from collections.abc import Callable
from typing import Final

from bumble import controller, hci, link, ll

from embridge.firmware_bridge.capacity import MAX_OCTETS, MIN_OCTETS, PHY_1M, PHY_2M
from embridge.firmware_bridge.virtual_air import CONTROL_OCTETS, AirLink, End, Packet

INTERVAL_UNIT_US: Final = 1_250
TIMEOUT_UNIT_US: Final = 10_000
MAX_TX_TIME_US: Final = 2_120  # of 251 octets on 1M

AirOf = Callable[[controller.Connection], AirLink]


def end_of(connection: controller.Connection) -> End:
    """Which end of the air a controller's connection is."""
    return End.CENTRAL if connection.role == hci.Role.CENTRAL else End.PERIPHERAL


class VirtualController(controller.Controller):
    """A controller on `radio`; acl_packets fit it, and air_of finds a connection on the air."""

    le_features = controller.Controller.le_features & ~(
        hci.LeFeatureMask.LE_EXTENDED_ADVERTISING
        | hci.LeFeatureMask.LE_PERIODIC_ADVERTISING
        | hci.LeFeatureMask.LE_CODED_PHY
        | hci.LeFeatureMask.LL_PRIVACY
    )
    le_acl_data_packet_length = MAX_OCTETS
    supported_max_tx_octets = supported_max_rx_octets = MAX_OCTETS
    supported_max_tx_time = supported_max_rx_time = MAX_TX_TIME_US

    def __init__(self, name: str, radio: link.LocalLink, air_of: AirOf, acl_packets: int) -> None:
        super().__init__(name, link=radio)
        self.total_num_le_acl_data_packets = acl_packets
        self._air_of = air_of

    def on_hci_acl_data_packet(self, packet: hci.HCI_AclDataPacket) -> None:
        """Queue data for the air."""
        connection = self.find_le_connection_by_handle(packet.connection_handle)
        if connection is None:
            return  # it was lost while the host was sending
        self._air_of(connection).send(
            end_of(connection),
            Packet(
                octets=len(packet.data),
                # Passes the data on and gives the credit back.
                deliver=lambda: connection.on_hci_acl_data_packet(packet),
                wanted=lambda: self.le_connections.get(connection.peer_address) is connection,
            ),
        )

    def on_hci_le_set_data_length_command(
        self, command: hci.HCI_LE_Set_Data_Length_Command
    ) -> hci.HCI_StatusAndConnectionHandleReturnParameters:
        """Vol 4 Part E 7.8.33; the same in both directions."""
        connection = self.find_le_connection_by_handle(command.connection_handle)
        status = hci.HCI_ErrorCode.UNKNOWN_CONNECTION_IDENTIFIER_ERROR
        if connection is not None:
            octets = max(MIN_OCTETS, min(command.tx_octets, MAX_OCTETS))
            self._negotiate(connection, lambda air: _set_octets(air, octets), _data_length_event)
            status = hci.HCI_ErrorCode.SUCCESS
        return hci.HCI_StatusAndConnectionHandleReturnParameters(
            status=status, connection_handle=command.connection_handle
        )

    def on_hci_le_set_phy_command(self, command: hci.HCI_LE_Set_PHY_Command) -> None:
        """Vol 4 Part E 7.8.49; 2M if it is among those wanted, the same in both directions."""
        connection = self.find_le_connection_by_handle(command.connection_handle)
        if connection is None:
            status = hci.HCI_ErrorCode.UNKNOWN_CONNECTION_IDENTIFIER_ERROR
            self._send_hci_command_status(status, command.op_code)
            return
        self._send_hci_command_status(hci.HCI_COMMAND_STATUS_PENDING, command.op_code)
        wants_2m = command.tx_phys & hci.phy_list_to_bits([hci.Phy.LE_2M])
        phy = PHY_2M if wants_2m else PHY_1M
        self._negotiate(connection, lambda air: _set_phy(air, phy), _phy_event)

    def on_hci_le_read_phy_command(
        self, command: hci.HCI_LE_Read_PHY_Command
    ) -> hci.HCI_LE_Read_PHY_ReturnParameters:
        """Vol 4 Part E 7.8.47."""
        connection = self.find_le_connection_by_handle(command.connection_handle)
        status, phy = hci.HCI_ErrorCode.UNKNOWN_CONNECTION_IDENTIFIER_ERROR, PHY_1M
        if connection is not None:
            status, phy = hci.HCI_ErrorCode.SUCCESS, self._air_of(connection).phy
        return hci.HCI_LE_Read_PHY_ReturnParameters(
            status=status,
            connection_handle=command.connection_handle,
            tx_phy=hci.Phy(phy),
            rx_phy=hci.Phy(phy),
        )

    def on_hci_le_create_connection_cancel_command(
        self, _command: hci.HCI_LE_Create_Connection_Cancel_Command
    ) -> hci.HCI_StatusReturnParameters:
        """Vol 4 Part E 7.8.13: the connection that was waited for completes as cancelled."""
        pending, self.pending_le_connection = self.pending_le_connection, None
        if pending is None:
            return hci.HCI_StatusReturnParameters(hci.HCI_ErrorCode.COMMAND_DISALLOWED_ERROR)
        self.send_hci_packet(
            hci.HCI_LE_Connection_Complete_Event(
                status=hci.HCI_ErrorCode.UNKNOWN_CONNECTION_IDENTIFIER_ERROR,
                connection_handle=0,
                role=hci.Role.CENTRAL,
                peer_address_type=pending.peer_address.address_type,
                peer_address=pending.peer_address,
                connection_interval=0,
                peripheral_latency=0,
                supervision_timeout=0,
                central_clock_accuracy=0,
            )
        )
        return hci.HCI_StatusReturnParameters(hci.HCI_ErrorCode.SUCCESS)

    def on_le_connect_ind(self, packet: ll.ConnectInd) -> None:
        """Tell the peripheral's host the parameters, too, that the central has chosen."""
        known = self.le_connections.get(packet.initiator_address)
        super().on_le_connect_ind(packet)
        connection = self.le_connections.get(packet.initiator_address)
        if connection is not None and connection is not known:
            self.send_hci_packet(
                hci.HCI_LE_Connection_Update_Complete_Event(
                    status=hci.HCI_ErrorCode.SUCCESS,
                    connection_handle=connection.handle,
                    connection_interval=packet.interval,
                    peripheral_latency=packet.latency,
                    supervision_timeout=packet.timeout,
                )
            )

    def on_hci_le_connection_update_command(
        self, command: hci.HCI_LE_Connection_Update_Command
    ) -> None:
        """Vol 4 Part E 7.8.18; the longest interval that is asked for."""
        connection = self.find_le_connection_by_handle(command.connection_handle)
        if connection is None:
            status = hci.HCI_ErrorCode.UNKNOWN_CONNECTION_IDENTIFIER_ERROR
            self._send_hci_command_status(status, command.op_code)
            return
        self._send_hci_command_status(hci.HCI_COMMAND_STATUS_PENDING, command.op_code)
        interval_us = command.connection_interval_max * INTERVAL_UNIT_US
        timeout_us = command.supervision_timeout * TIMEOUT_UNIT_US
        self._negotiate(
            connection, lambda air: _set_timing(air, interval_us, timeout_us), _update_event
        )

    def on_ll_control_pdu(self, sender_address: hci.Address, packet: ll.ControlPdu) -> None:
        """Ignore what comes after a connection was lost."""
        if sender_address in self.le_connections:
            super().on_ll_control_pdu(sender_address, packet)

    def _negotiate(
        self,
        connection: controller.Connection,
        change: Callable[[AirLink], None],
        event: Callable[[AirLink, int], hci.HCI_Event],
    ) -> None:
        """Once a control packet has reached the other end, change the air and tell both hosts."""
        air = self._air_of(connection)

        def agreed() -> None:
            change(air)
            for end in self.link.controllers:
                for held in end.le_connections.values():
                    if _joins(held, connection):
                        end.send_hci_packet(event(air, held.handle))

        air.send(end_of(connection), Packet(CONTROL_OCTETS, agreed, wanted=lambda: True))


def _joins(held: controller.Connection, connection: controller.Connection) -> bool:
    """True for either end of a connection."""
    addresses = {held.self_address, held.peer_address}
    return addresses == {connection.self_address, connection.peer_address}


def _set_octets(air: AirLink, octets: int) -> None:
    air.octets = octets


def _set_phy(air: AirLink, phy: int) -> None:
    air.phy = phy


def _set_timing(air: AirLink, interval_us: int, timeout_us: int) -> None:
    air.interval_us, air.timeout_us = interval_us, timeout_us


def _update_event(air: AirLink, handle: int) -> hci.HCI_Event:
    return hci.HCI_LE_Connection_Update_Complete_Event(
        status=hci.HCI_ErrorCode.SUCCESS,
        connection_handle=handle,
        connection_interval=air.interval_us // INTERVAL_UNIT_US,
        peripheral_latency=0,
        supervision_timeout=air.timeout_us // TIMEOUT_UNIT_US,
    )


def _data_length_event(air: AirLink, handle: int) -> hci.HCI_Event:
    return hci.HCI_LE_Data_Length_Change_Event(
        connection_handle=handle,
        max_tx_octets=air.octets,
        max_tx_time=MAX_TX_TIME_US,
        max_rx_octets=air.octets,
        max_rx_time=MAX_TX_TIME_US,
    )


def _phy_event(air: AirLink, handle: int) -> hci.HCI_Event:
    return hci.HCI_LE_PHY_Update_Complete_Event(
        status=hci.HCI_ErrorCode.SUCCESS,
        connection_handle=handle,
        tx_phy=air.phy,
        rx_phy=air.phy,
    )
